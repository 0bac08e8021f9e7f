package sealserve

import (
	"context"
	"errors"
	"math/bits"
	"time"

	"sealserve.example/sealserve/internal/item"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

// Predict returns the predictions of rows of numbers, one number for each column of the model.
//
// Many rows travel in several items, which the client splits and puts together again. If rows are
// refused, an admissible row is encrypted in the place of each, and the error says so after the
// answer: neither what is sent nor when it is sent tells the service of it.
func (c *Client) Predict(ctx context.Context, rows [][]float64) (*Predictions, error) {
	return c.predict(ctx, numbers(rows))
}

// PredictTable returns the predictions of rows whose columns may be strings. See Predict.
func (c *Client) PredictTable(ctx context.Context, table Table) (*Predictions, error) {
	return c.predict(ctx, table)
}

// maxChanges is how often rows are sent again because the service has changed. The delays between are
// two seconds in the end.
const maxChanges = 64

func (c *Client) predict(ctx context.Context, rows rowSource) (*Predictions, error) {
	if err := c.checkOpen(); err != nil {
		return nil, err
	}
	known, changed := c.current(), changes{}
	for {
		found, next, err := c.attempt(ctx, known, rows, &changed)
		if err != nil {
			return nil, c.finalError(err)
		}
		if found != nil {
			return found, nil
		}
		known = next
	}
}

// attempt predicts rows, or does what a change of the service asks for and returns the configuration
// to try next.
func (c *Client) attempt(
	ctx context.Context, known *configuration, rows rowSource, changed *changes,
) (*Predictions, *configuration, error) {
	found, err := c.predictOnce(ctx, known, rows)
	if err == nil {
		return found, nil, nil
	}
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	codec, failed := c.codec(known, rows.len())
	if failed != nil {
		return nil, nil, err
	}
	next, err := c.afterChange(ctx, err, codec, changed)
	if err != nil {
		return nil, nil, err
	}
	if next == nil {
		next = known
	}
	return nil, next, sleep(ctx, changeDelay(changed.count))
}

// finalError is what a user gets.
func (c *Client) finalError(err error) error {
	if closed := c.checkOpen(); closed != nil {
		return closed
	}
	return typedError(err)
}

// changes are the changes that rows have met: of the model's configuration, or the loss of a key.
type changes struct {
	count, losses int
	tried         map[string]bool
}

// goesTo tells whether to go to a configuration that a replica names. Replicas that take turns could
// always answer for the other one. For those that were tried, the choices are therefore those of the
// Thue-Morse sequence, which keeps step with no order of turns.
func (c *changes) goesTo(id, current string) bool {
	if c.tried == nil {
		c.tried = make(map[string]bool)
	}
	c.tried[current] = true
	isNew := !c.tried[id] && len(c.tried) < maxConfigurations
	c.tried[id] = true
	return isNew || bits.OnesCount(uint(c.count-1))%2 == 0
}

// afterChange does what an error asks for before rows are sent again: it follows the service to
// another configuration, which it returns, or registers a lost key. It returns any other error.
func (c *Client) afterChange(
	ctx context.Context, err error, codec *item.Codec, changed *changes,
) (*configuration, error) {
	changed.count++
	var stale *StaleConfigError
	var lost *KeyNotFoundError
	switch {
	case changed.count > maxChanges:
		return nil, err
	case errors.As(err, &stale):
		if !changed.goesTo(stale.CurrentConfigID, codec.Model.ConfigID) {
			return nil, nil
		}
		return c.follow(ctx, stale.CurrentConfigID)
	case errors.As(err, &lost):
		if changed.losses++; changed.losses > maxLosses {
			return nil, err
		}
		return nil, c.registerAgain(ctx, codec)
	}
	return nil, err
}

func (c *Client) predictOnce(ctx context.Context, known *configuration, rows rowSource) (*Predictions, error) {
	found := &Predictions{output: known.model.Output}
	if rows.len() == 0 {
		return found, nil
	}
	codec, err := c.codec(known, rows.len())
	if err != nil {
		return nil, err
	}
	if rows.len() > codec.Offer.RowsPerItem || !codec.FitsMessage() {
		return c.predictItems(ctx, codec, rows)
	}
	q, err := quantize(rows, known.model, c.options.clip)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	if err := c.register(ctx, codec); err != nil {
		return nil, err
	}
	decrypted, err := c.predictItem(ctx, codec, q)
	// Nothing more is sent from here on: what the reply decrypts to decides on errors only now.
	switch {
	case err != nil && !errors.Is(err, ErrReply):
		return nil, err
	case q.anyRefused:
		return nil, refusal(rows, codec, c.options.clip, 0)
	case err != nil || !decrypted.IsPlausible:
		return nil, ErrReply
	}
	found.Scores = decrypted.Scores
	return found, nil
}

// predictItem scores one item in one message.
func (c *Client) predictItem(ctx context.Context, codec *item.Codec, q quantized) (item.Decrypted, error) {
	request := &pb.PredictRequest{
		Header: codec.Header(len(q.cells)), Ciphertexts: encryptAll(codec, q.cells, 0, codec.Ciphertexts()),
	}
	var response *pb.PredictResponse
	err := c.retry(ctx, func() (err error) {
		response, err = c.predictions.Predict(ctx, request)
		return err
	})
	if err != nil {
		return item.Decrypted{}, err
	}
	decrypted, err := codec.Read(len(q.cells), response.GetScores().GetScores(), q.isRefused)
	if err != nil {
		return item.Decrypted{}, ErrReply
	}
	return decrypted, nil
}

// retry calls a function again as long as the service is busy and the context lasts. It returns a
// typed error.
func (c *Client) retry(ctx context.Context, act func() error) error {
	for failures := 1; ; failures++ {
		err := act()
		if err == nil {
			return nil
		}
		if ended := ctx.Err(); ended != nil {
			return ended
		}
		err = typedError(err)
		var busy Temporary
		if !errors.As(err, &busy) {
			return err
		}
		delay := busyDelay(busy, failures)
		if deadline, has := ctx.Deadline(); has && time.Until(deadline) <= delay {
			return lastRefusal(err)
		}
		if ended := sleep(ctx, delay); ended != nil {
			return ended
		}
	}
}

// lastRefusal is the error of a service that is busy for too long. It refuses an item at once whose
// turn would come after the deadline: to the caller that is a deadline that passed, not a quota.
func lastRefusal(err error) error {
	var quota *QuotaExceededError
	if errors.As(err, &quota) && quota.Quota == "deadline" {
		return &DeadlineError{}
	}
	return err
}
