package sealserve

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

const (
	maxFailures   = 8 // of a batch, before it fails for good once a timeout is over
	closingTime   = 2 * time.Second
	leastKeepWait = 10 * time.Millisecond
)

// schedule sends batches as items of streams, one stream after another. When a stream breaks, its
// unfinished batches wait for the next one. The same happens to an item that the service was too busy
// for, or whose configuration has changed.
//
// All of its fields belong to the goroutine of run.
type schedule struct {
	client   *Client
	batches  <-chan *batch
	outcomes chan<- outcome
	// waiting are batches that are sent before new ones.
	waiting []*batch
	ended   bool // whether batches is closed

	failures     int // of streams, in a row
	lastProgress time.Time
	lastFailure  error
}

// openItem is an item that has begun and not ended.
type openItem struct {
	batch *batch
	pairs []*pb.EncryptedScores
}

// stream is what a schedule knows of the stream that is open.
type stream struct {
	calls    pb.PredictionService_StreamPredictClient
	incoming chan *pb.StreamPredictResponse
	broken   chan error    // the end of the stream
	toSend   chan sending  // to the goroutine that encrypts and sends
	sent     chan struct{} // an item is sent
	lastSent atomic.Int64  // when a message was sent, in nanoseconds of Unix time
	items    map[uint64]*openItem
	window   uint64
	held     uint64
	lastID   uint64
	isBusy   bool // whether an item is being sent
	pause    time.Time
}

// sending is an item to send; without a batch a message that keeps the stream open.
type sending struct {
	id    uint64
	batch *batch
}

// run sends batches until there are no more, and returns an error that ends all of them.
func (s *schedule) run(ctx context.Context) error {
	s.lastProgress = time.Now()
	for {
		if err := s.awaitBatch(ctx); err != nil || (s.ended && len(s.waiting) == 0) {
			return err
		}
		err := s.runStream(ctx)
		if ended := ctx.Err(); ended != nil {
			return ended
		}
		if err == nil {
			continue
		}
		if closed := s.client.checkOpen(); closed != nil {
			return closed
		}
		if !isOfStream(err) {
			return err
		}
		s.lastFailure = err
		s.failures++
		delay := breakDelay(s.failures)
		var busy Temporary
		if errors.As(err, &busy) {
			delay = busyDelay(busy, s.failures)
		}
		if time.Since(s.lastProgress)+delay > s.client.options.timeout {
			return lastRefusal(err)
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}

// isOfStream tells whether an error ends one stream, while another stream may succeed.
func isOfStream(err error) bool {
	var busy Temporary
	var unavailable *UnavailableError
	var idle *IdleTimeoutError
	return errors.As(err, &busy) || errors.As(err, &unavailable) || errors.As(err, &idle)
}

// awaitBatch waits for a batch while no stream is open.
func (s *schedule) awaitBatch(ctx context.Context) error {
	if len(s.waiting) > 0 || s.ended {
		return nil
	}
	select {
	case b, ok := <-s.batches:
		s.take(b, ok)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *schedule) take(b *batch, ok bool) {
	if !ok {
		s.ended = true
		return
	}
	if len(s.waiting) == 0 {
		s.lastProgress = time.Now()
	}
	s.waiting = append(s.waiting, b)
}

// runStream opens a stream and uses it until it breaks or all batches are finished.
func (s *schedule) runStream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	calls, err := s.client.predictions.StreamPredict(ctx)
	if err != nil {
		return typedError(err)
	}
	st := &stream{
		calls: calls, incoming: make(chan *pb.StreamPredictResponse), broken: make(chan error, 1),
		toSend: make(chan sending, 2), sent: make(chan struct{}, 1), items: make(map[uint64]*openItem),
		window: s.waiting[0].codec.Model.Limits.WindowBytes,
	}
	go st.receive(ctx)
	go st.sendAll(ctx)
	err = s.serve(ctx, st)
	close(st.toSend)
	if err == nil {
		st.awaitEnd()
	}
	// What has begun begins again.
	unfinished := make([]*batch, 0, len(st.items)+len(s.waiting))
	for id := uint64(1); id <= st.lastID; id++ {
		if open := st.items[id]; open != nil {
			unfinished = append(unfinished, open.batch)
		}
	}
	s.waiting = append(unfinished, s.waiting...)
	return err
}

// awaitEnd gives the service a while to end a stream that has no more work.
func (st *stream) awaitEnd() {
	timer := time.NewTimer(closingTime)
	defer timer.Stop()
	for {
		select {
		case <-st.incoming:
		case <-st.broken:
			return
		case <-timer.C:
			return
		}
	}
}

// receive hands on messages until the stream ends.
func (st *stream) receive(ctx context.Context) {
	for {
		response, err := st.calls.Recv()
		if err != nil {
			st.broken <- err
			return
		}
		select {
		case st.incoming <- response:
		case <-ctx.Done():
			return
		}
	}
}

// sendAll encrypts and sends items. When a send fails, receive has the reason.
func (st *stream) sendAll(ctx context.Context) {
	for next := range st.toSend {
		var err error
		if next.batch == nil {
			err = st.calls.Send(&pb.StreamPredictRequest{Cancel: true})
		} else {
			err = next.batch.send(next.id, st.send)
		}
		if err != nil {
			return
		}
		if next.batch == nil {
			continue
		}
		select {
		case st.sent <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
	_ = st.calls.CloseSend()
}

func (st *stream) send(request *pb.StreamPredictRequest) error {
	err := st.calls.Send(request)
	if err == nil {
		st.lastSent.Store(time.Now().UnixNano())
	}
	return err
}

// serve uses a stream. It returns nil once there are no more batches.
func (s *schedule) serve(ctx context.Context, st *stream) error {
	keep := s.keepAlive()
	defer keep.Stop()
	check := time.NewTicker(max(s.client.options.timeout/4, time.Millisecond))
	defer check.Stop()
	for {
		if s.ended && len(s.waiting) == 0 && len(st.items) == 0 {
			return nil
		}
		var batches <-chan *batch
		if !s.ended && len(s.waiting) == 0 {
			batches = s.batches
		}
		var resume <-chan time.Time
		if wait := time.Until(st.pause); wait > 0 {
			resume = time.After(wait)
		} else if !st.isBusy && len(s.waiting) > 0 && st.hasRoom(s.waiting[0]) {
			st.begin(s.waiting[0])
			s.waiting = s.waiting[1:]
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b, ok := <-batches:
			s.take(b, ok)
		case response := <-st.incoming:
			if err := s.receive(ctx, st, response); err != nil {
				return err
			}
		case <-st.sent:
			st.isBusy = false
		case err := <-st.broken:
			return s.brokenBy(st, err)
		case <-keep.C:
			if !st.isBusy && len(st.items) == 0 && len(st.toSend) == 0 {
				st.toSend <- sending{}
			}
		case <-check.C:
			silent := min(time.Since(s.lastProgress), time.Since(time.Unix(0, st.lastSent.Load())))
			if len(s.waiting)+len(st.items) > 0 && silent > s.client.options.timeout {
				return s.timedOut()
			}
		case <-resume:
		}
	}
}

func (s *schedule) brokenBy(st *stream, err error) error {
	if !errors.Is(err, io.EOF) {
		return typedError(err)
	}
	if len(st.items) > 0 {
		return ErrReply // the service ended the stream without its items
	}
	return &UnavailableError{"the service ended the stream"}
}

func (s *schedule) timedOut() error {
	if s.lastFailure != nil {
		return lastRefusal(s.lastFailure)
	}
	return &DeadlineError{}
}

// keepAlive ticks when a silent stream has to say that it is in use.
func (s *schedule) keepAlive() *time.Ticker {
	idle := s.waiting[0].codec.Model.Limits.IdleTimeout
	if idle <= 0 {
		idle = 3 * time.Hour
	}
	return time.NewTicker(max(leastKeepWait, idle/3))
}

func (st *stream) hasRoom(b *batch) bool {
	limits := b.codec.Model.Limits
	return len(st.items) == 0 || (len(st.items) < limits.MaxOpenItems && st.held+b.codec.Offer.HeldBytes <= st.window)
}

func (st *stream) begin(b *batch) {
	st.lastID++
	st.items[st.lastID] = &openItem{batch: b}
	st.held += b.codec.Offer.HeldBytes
	st.isBusy = true
	st.toSend <- sending{st.lastID, b}
}

// receive adds a response, and finishes the item that it ends.
func (s *schedule) receive(ctx context.Context, st *stream, response *pb.StreamPredictResponse) error {
	if window := response.GetWindow(); window != nil {
		st.window = window.GetMaxBytesInFlight()
	}
	open := st.items[response.GetItemId()]
	if open == nil {
		return nil
	}
	if group := response.GetScores(); group != nil {
		if int64(group.GetFirstIndex()) != int64(len(open.pairs)) {
			return ErrReply
		}
		most := open.batch.codec.Offer.MaxPairBytes()
		for _, pair := range group.GetScores() {
			if pairBytes(pair) > most || len(open.pairs) >= open.batch.codec.Offer.Layout.Pairs() {
				return ErrReply
			}
			open.pairs = append(open.pairs, pair)
		}
	}
	if response.GetDone() == nil && response.GetError() == nil {
		return nil
	}
	delete(st.items, response.GetItemId())
	st.held -= open.batch.codec.Offer.HeldBytes
	if response.GetError() != nil {
		return s.failed(ctx, st, open.batch, response.GetError())
	}
	s.failures = 0
	return s.finish(ctx, outcome{batch: open.batch, pairs: open.pairs})
}

func pairBytes(pair *pb.EncryptedScores) int {
	return len(pair.GetPacked().GetC0()) + len(pair.GetPacked().GetC1()) + len(pair.GetResidues().GetC0()) +
		len(pair.GetResidues().GetC1()) + len(pair.GetSealCiphertext())
}

func (s *schedule) finish(ctx context.Context, o outcome) error {
	select {
	case s.outcomes <- o:
		s.lastProgress = time.Now() // the caller's own time does not count
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failed lets a batch wait again if its error is temporary or another configuration mends it, and
// finishes it otherwise.
func (s *schedule) failed(ctx context.Context, st *stream, b *batch, message *pb.Error) error {
	err := errorFromProto(message)
	if err == nil {
		err = &CallError{Code: "UNKNOWN", Message: "the service refused the item for a reason that this version does not know"}
	}
	var busy Temporary
	var late *ItemTimeoutError
	var stale *StaleConfigError
	var lost *KeyNotFoundError
	switch {
	case errors.As(err, &busy) || errors.As(err, &late):
		s.lastFailure = err
		b.failures++
		if b.failures > maxFailures && time.Since(s.lastProgress) > s.client.options.timeout {
			return s.finish(ctx, outcome{batch: b, err: lastRefusal(err)})
		}
		delay := breakDelay(b.failures)
		if busy != nil {
			delay = busyDelay(busy, b.failures)
		}
		st.pause = time.Now().Add(delay)
		s.waiting = append([]*batch{b}, s.waiting...)
		return nil
	case errors.As(err, &stale) || errors.As(err, &lost):
		renewed, err := s.client.renew(ctx, b, err)
		if err != nil {
			return s.finish(ctx, outcome{batch: b, err: err})
		}
		s.waiting = append(renewed, s.waiting...)
		st.pause = time.Now().Add(changeDelay(b.changed.count))
		return nil
	}
	return s.finish(ctx, outcome{batch: b, err: err})
}

// renew makes a batch anew for another configuration, or after the loss of its key.
func (c *Client) renew(ctx context.Context, b *batch, cause error) ([]*batch, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	next, err := c.afterChange(ctx, cause, b.codec, &b.changed)
	if err != nil {
		return nil, err
	}
	if next == nil {
		return []*batch{b}, nil
	}
	codec, err := c.codec(next, b.rows.len())
	if err != nil {
		return nil, err
	}
	if err := c.register(ctx, codec); err != nil {
		return nil, err
	}
	renewed, err := c.batches(codec, b.rows, b.first)
	for _, each := range renewed {
		each.changed, each.failures = b.changed, b.failures
	}
	return renewed, err
}
