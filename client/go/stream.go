package sealserve

import (
	"context"
	"io"
	"sync"
)

// Stream sends rows as they come, and receives their predictions in the same order.
//
// One goroutine may send while another one receives. Send waits while the service has as much as it
// takes, until results are received: a goroutine that sends everything before it receives anything
// would wait for ever.
type Stream struct {
	client   *Client
	ctx      context.Context
	cancel   context.CancelFunc
	batches  chan *batch
	outcomes chan outcome
	done     chan struct{} // closed when the schedule has ended
	failure  error         // of the schedule, once done is closed

	sending  sync.Mutex
	sent     int // rows
	isClosed bool

	receiving sync.Mutex
	received  int
	arrived   map[int]outcome // by the index of their first row
	results   []Result
}

// Result is what became of one row of a stream.
type Result struct {
	// Index is the number of the row, in the order of sending, from 0.
	Index int
	// Predictions is of this row alone; nil if there is an error.
	Predictions *Predictions
	// Err is why this row has none. It does not end the stream.
	Err error
}

// Stream opens a stream. The context ends it. Without a deadline it lasts as long as there is
// progress.
func (c *Client) Stream(ctx context.Context) (*Stream, error) {
	if err := c.checkOpen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Stream{
		client: c, ctx: ctx, cancel: cancel, batches: make(chan *batch), outcomes: make(chan outcome, 1),
		done: make(chan struct{}), arrived: make(map[int]outcome),
	}
	go func() {
		defer close(s.done)
		defer close(s.outcomes)
		run := schedule{client: c, batches: s.batches, outcomes: s.outcomes}
		s.failure = run.run(ctx)
	}()
	return s, nil
}

// Send sends rows of numbers. The rows of one call share items, as many as fit into one.
func (s *Stream) Send(rows ...[]float64) error {
	copied := make(numbers, len(rows))
	for i, row := range rows {
		copied[i] = append([]float64(nil), row...)
	}
	return s.send(copied)
}

// SendTable sends rows whose columns may be strings. See Send. The rows must stay as they are.
func (s *Stream) SendTable(table Table) error { return s.send(table) }

func (s *Stream) send(rows rowSource) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.isClosed {
		return ErrClosed
	}
	if rows.len() == 0 {
		return nil
	}
	codec, err := s.client.codec(s.client.current(), rows.len())
	if err != nil {
		return err
	}
	ready, err := s.client.batches(codec, rows, s.sent)
	if err != nil {
		return err
	}
	if err := s.client.registerWithin(s.ctx, codec); err != nil {
		return s.client.finalError(err)
	}
	for _, b := range ready {
		select {
		case s.batches <- b:
			s.sent += b.rows.len()
		case <-s.done:
			return s.end()
		case <-s.ctx.Done():
			return s.end()
		}
	}
	return nil
}

// CloseSend says that no more rows come. Receive until io.EOF then.
func (s *Stream) CloseSend() error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if !s.isClosed {
		s.isClosed = true
		close(s.batches)
	}
	return nil
}

// Close ends the stream, and discards what has not been received.
func (s *Stream) Close() error {
	s.cancel()
	err := s.CloseSend()
	<-s.done
	return err
}

// Recv returns the result of the next row, or io.EOF after the last one. Any other error ends the
// stream.
func (s *Stream) Recv() (Result, error) {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	for len(s.results) == 0 {
		if next, ok := s.arrived[s.received]; ok {
			delete(s.arrived, s.received)
			s.received += next.batch.rows.len()
			s.results = s.client.results(next)
			continue
		}
		o, ok := <-s.outcomes
		if !ok {
			return Result{}, s.end()
		}
		s.arrived[o.batch.first] = o
	}
	result := s.results[0]
	s.results = s.results[1:]
	return result, nil
}

// end returns why the stream has ended.
func (s *Stream) end() error {
	select {
	case <-s.done:
	case <-s.ctx.Done():
		<-s.done
	}
	if s.failure == nil {
		if err := s.client.checkOpen(); err != nil {
			return err
		}
		return io.EOF
	}
	return s.client.finalError(s.failure)
}

// results are those of the rows of a batch.
func (c *Client) results(o outcome) []Result {
	decrypted, err := o.scores()
	if err != nil {
		err = typedError(err)
	}
	found := make([]Result, o.batch.rows.len())
	for r := range found {
		found[r] = Result{Index: o.batch.first + r, Err: err}
		switch {
		case o.batch.q.isRefused[r]:
			found[r].Err = refusal(o.batch.rows.part(r, r+1), o.batch.codec, c.options.clip, o.batch.first+r)
		case err == nil:
			found[r].Predictions = &Predictions{Scores: decrypted.Scores[r : r+1], output: o.batch.codec.Model.Output}
		}
	}
	return found
}
