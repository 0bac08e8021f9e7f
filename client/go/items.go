package sealserve

import (
	"context"
	"errors"
	"fmt"

	"sealserve.example/sealserve/internal/item"
)

// maxScores is the most scores that one call returns, of 8 bytes.
const maxScores = 1 << 29

// predictItems scores rows in several items of a stream.
func (c *Client) predictItems(ctx context.Context, codec *item.Codec, rows rowSource) (*Predictions, error) {
	if rows.len() > maxScores/codec.Model.Output.Scores {
		return nil, &ParameterError{fmt.Errorf("%d rows of %d scores are too many to return at once: use Stream",
			rows.len(), codec.Model.Output.Scores)}
	}
	ready, err := c.batches(codec, rows, 0)
	if err != nil {
		return nil, err
	}
	if err := c.registerWithin(ctx, codec); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches, outcomes := make(chan *batch), make(chan outcome, 1)
	var failure error
	go func() {
		defer close(outcomes)
		s := schedule{client: c, batches: batches, outcomes: outcomes}
		failure = s.run(ctx)
	}()
	go func() {
		defer close(batches)
		for _, b := range ready {
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	joined := joining{predictions: &Predictions{Scores: make([][]float64, rows.len()), output: codec.Model.Output}}
	for o := range outcomes {
		joined.add(o)
	}
	if failure != nil {
		return nil, failure
	}
	return joined.result(rows, codec, c.options.clip)
}

// registerWithin registers a key within the timeout of a call.
func (c *Client) registerWithin(ctx context.Context, codec *item.Codec) error {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	return c.register(ctx, codec)
}

// joining puts the scores of batches together. Whether rows are sent again must not depend on what a
// reply decrypts to, nor on values of rows: errors that depend on them come last.
type joining struct {
	predictions *Predictions
	configID    string
	changed     error // the meaning of scores changed between two batches
	refused     error // by the service
	anyRefused  bool  // rows
	malformed   bool
}

func (j *joining) add(o outcome) {
	m := o.batch.codec.Model
	if j.configID == "" {
		j.configID, j.predictions.output = m.ConfigID, m.Output
	}
	if m.ConfigID != j.configID {
		j.changed = &StaleConfigError{m.ConfigID}
	}
	decrypted, err := o.scores()
	switch {
	case errors.Is(err, ErrReply):
		j.malformed = true
	case err != nil && j.refused == nil:
		j.refused = err
	}
	j.anyRefused = j.anyRefused || o.batch.q.anyRefused
	copy(j.predictions.Scores[o.batch.first:], decrypted.Scores)
}

func (j *joining) result(rows rowSource, codec *item.Codec, clip bool) (*Predictions, error) {
	switch {
	case j.changed != nil:
		return nil, j.changed
	case j.refused != nil:
		return nil, j.refused
	case j.anyRefused:
		return nil, refusal(rows, codec, clip, 0)
	case j.malformed:
		return nil, ErrReply
	}
	return j.predictions, nil
}
