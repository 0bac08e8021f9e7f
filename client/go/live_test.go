package sealserve

// Tests against a running service: tests/integration/test_go_client.py starts one and these. Without
// its file they are skipped.

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"testing"
	"time"
)

// live is what the Python test hands over.
type live struct {
	Address string
	Token   string
	Cases   []liveCase
}

// liveCase is rows of a model, and what scikit-learn says of them.
type liveCase struct {
	Model         string
	Columns       []string
	Rows          [][]any
	Labels        []any
	Targets       []float64
	Scores        [][]float64 // of decision_function
	Probabilities [][]float64
	// Tolerance is how far a score may be from the estimator's, beside the offer's own bound.
	Tolerance float64
}

func readLive(t *testing.T) live {
	t.Helper()
	path := os.Getenv("SEALSERVE_LIVE")
	if path == "" {
		t.Skip("there is no service: run pytest -m slow tests/integration/test_go_client.py")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found live
	if err := json.Unmarshal(data, &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func (l live) named(t *testing.T, name string) liveCase {
	t.Helper()
	for _, c := range l.Cases {
		if c.Model == name {
			return c
		}
	}
	t.Fatal("there is no model", name)
	return liveCase{}
}

func (c liveCase) table() Table {
	return Table{Columns: c.Columns, Rows: c.Rows}
}

func (c liveCase) numbers(t *testing.T) [][]float64 {
	t.Helper()
	found := make([][]float64, len(c.Rows))
	for r, row := range c.Rows {
		for _, value := range row {
			x, ok := value.(float64)
			if !ok {
				t.Fatalf("%v is no number", value)
			}
			found[r] = append(found[r], x)
		}
	}
	return found
}

func dialed(t *testing.T, l live, opts ...Option) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := Dial(ctx, l.Address, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// check compares predictions of rows first... with the estimator's.
func (c liveCase) check(t *testing.T, p *Predictions, first int) {
	t.Helper()
	for r := range p.Len() {
		if c.Scores != nil && !within(p.Scores[r], c.Scores[first+r], c.Tolerance) {
			t.Fatalf("row %d: scores %v, expected %v", first+r, p.Scores[r], c.Scores[first+r])
		}
	}
	if c.Targets != nil {
		targets, err := p.Targets()
		if err != nil {
			t.Fatal(err)
		}
		for r, target := range targets {
			if !within(target, c.Targets[first+r:first+r+1], c.Tolerance) {
				t.Fatalf("row %d: target %v, expected %v", first+r, target, c.Targets[first+r])
			}
		}
		return
	}
	labels, err := p.Labels()
	if err != nil {
		t.Fatal(err)
	}
	for r, label := range labels {
		found, expected := label, c.Labels[first+r]
		if integer, ok := label.(int64); ok {
			found = float64(integer)
		}
		if found != expected && !c.isClose(first+r) {
			t.Fatalf("row %d: label %v, expected %v", first+r, label, expected)
		}
	}
	if c.Probabilities == nil {
		return
	}
	probabilities, err := p.Probabilities()
	if err != nil {
		t.Fatal(err)
	}
	for r, row := range probabilities {
		if !within(row, c.Probabilities[first+r], c.Tolerance) {
			t.Fatalf("row %d: probabilities %v, expected %v", first+r, row, c.Probabilities[first+r])
		}
	}
}

// isClose tells whether the two greatest probabilities of a row differ by no more than twice the
// tolerance, so that either label is right.
func (c liveCase) isClose(row int) bool {
	first, second := 0.0, 0.0
	for _, p := range c.Probabilities[row] {
		if p > first {
			first, second = p, first
		} else {
			second = max(second, p)
		}
	}
	return first-second <= 2*c.Tolerance
}

func within(found, expected []float64, tolerance float64) bool {
	if len(found) != len(expected) {
		return false
	}
	for i := range found {
		if !(math.Abs(found[i]-expected[i]) <= tolerance) {
			return false
		}
	}
	return true
}

func TestLivePredictions(t *testing.T) {
	l := readLive(t)
	for _, c := range l.Cases {
		for name, options := range map[string][]Option{
			"any": nil, "rows": {WithLayout(RowLayout)}, "columns": {WithLayout(ColumnLayout)},
			"seeded": {WithUpload(SeededUpload)}, "packed": {WithUpload(PackedUpload)},
		} {
			t.Run(c.Model+"/"+name, func(t *testing.T) {
				client := dialed(t, l, append(options, WithModel(c.Model))...)
				p, err := client.PredictTable(t.Context(), c.table())
				if err != nil {
					t.Fatal(err)
				}
				if p.Len() != len(c.Rows) {
					t.Fatal(p.Len())
				}
				c.check(t, p, 0)
				for r := range min(20, len(c.Rows)) {
					single := Table{Columns: c.Columns, Rows: c.Rows[r : r+1]}
					p, err := client.PredictTable(t.Context(), single)
					if err != nil {
						t.Fatal(err)
					}
					c.check(t, p, r)
				}
			})
		}
	}
}

func TestLiveStream(t *testing.T) {
	l := readLive(t)
	for _, name := range []string{"digits", "answers", "table"} {
		c := l.named(t, name)
		t.Run(name, func(t *testing.T) {
			client := dialed(t, l, WithModel(name))
			stream, err := client.Stream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			var group sync.WaitGroup
			group.Go(func() {
				for r := range c.Rows {
					if err := stream.SendTable(Table{Columns: c.Columns, Rows: c.Rows[r : r+1]}); err != nil {
						t.Error(err)
						return
					}
				}
				_ = stream.CloseSend()
			})
			for r := range c.Rows {
				result, err := stream.Recv()
				if err != nil || result.Err != nil || result.Index != r {
					t.Fatal(r, result, err)
				}
				c.check(t, result.Predictions, r)
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			group.Wait()
		})
	}
}

func TestLiveRefusedRows(t *testing.T) {
	l := readLive(t)
	c := l.named(t, "prices")
	client := dialed(t, l, WithModel("prices"))
	rows := c.numbers(t)[:3]
	rows[1] = append([]float64(nil), rows[1]...)
	for reason, value := range map[InputReason]float64{NotFinite: math.NaN(), OutOfRange: 1e6} {
		rows[1][2] = value
		var refused *InputError
		if _, err := client.Predict(t.Context(), rows); !errors.As(err, &refused) || refused.Reason != reason ||
			refused.Row != 1 || refused.Column != 2 {
			t.Error(err)
		}
		stream, err := client.Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(rows...); err != nil {
			t.Fatal(err)
		}
		_ = stream.CloseSend()
		for r := range rows {
			result, err := stream.Recv()
			if err != nil || (result.Err != nil) != (r == 1) {
				t.Error(r, result.Err, err)
			}
		}
		_ = stream.Close()
	}
	clipped := dialed(t, l, WithModel("prices"), WithClip())
	rows[1][2] = 1e6
	if _, err := clipped.Predict(t.Context(), rows); err != nil {
		t.Error(err)
	}
	var refused *InputError
	_, err := client.Predict(t.Context(), [][]float64{{1}})
	if !errors.As(err, &refused) || refused.Reason != FeatureCount {
		t.Error(err)
	}
}

func TestLiveErrors(t *testing.T) {
	l := readLive(t)
	var unknown *ModelNotFoundError
	if _, err := Dial(t.Context(), l.Address, WithModel("none")); !errors.As(err, &unknown) || unknown.Model != "none" {
		t.Error(err)
	}
	var refused ServiceError
	if _, err := Dial(t.Context(), l.Address); !errors.As(err, &refused) || refused.Detail() != "model_not_found" {
		t.Error(err)
	}
	client := dialed(t, l, WithModel("digits"))
	rows := l.named(t, "digits").numbers(t)[:1]
	ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	var late *DeadlineError
	if _, err := client.Predict(ctx, rows); !errors.As(err, &late) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Predict(canceled, rows); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	checkCanceledStream(t, client, rows)
	_ = client.Close()
	if _, err := client.Predict(t.Context(), rows); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := Dial(t.Context(), "127.0.0.1:1", WithModel("digits")); !errors.As(err, new(*UnavailableError)) {
		t.Error(err)
	}
}

func checkCanceledStream(t *testing.T, client *Client, rows [][]float64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(rows...); err != nil {
		t.Fatal(err)
	}
	if result, err := stream.Recv(); err != nil || result.Err != nil {
		t.Fatal(result, err)
	}
	cancel()
	if _, err := stream.Recv(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := stream.Send(rows...); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLiveGoroutines(t *testing.T) {
	l := readLive(t)
	c := l.named(t, "answers")
	client := dialed(t, l, WithModel("answers"))
	rows := c.numbers(t)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for r := worker; r < 80; r += 8 {
				p, err := client.Predict(t.Context(), rows[r:r+1])
				if err != nil {
					t.Error(err)
					return
				}
				c.check(t, p, r)
			}
		})
	}
	group.Wait()
}

// TestLiveRestart asks a service that the Python test kills once this test has made the file "asked",
// and starts again once it has made the file "down".
func TestLiveRestart(t *testing.T) {
	folder, target := os.Getenv("SEALSERVE_RESTART"), os.Getenv("SEALSERVE_ADDRESS")
	if folder == "" {
		t.Skip("there is no service: run pytest -m slow tests/integration/test_go_client.py")
	}
	client := dialed(t, live{Address: target})
	stream, err := client.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	ask := func() error {
		p, err := client.Predict(t.Context(), [][]float64{{0.5, 0.25, 1}})
		if err == nil && math.Abs(p.Scores[0][0]-0.5) > 1e-2 {
			t.Fatal("a wrong row", p.Scores)
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	touch(t, folder+"/asked")
	await(t, "an error", func() bool { return errors.As(ask(), new(*UnavailableError)) })
	const rows = 50
	var group sync.WaitGroup
	group.Go(func() { // a stream waits for the service to come back
		for range rows {
			if err := stream.Send([]float64{0.5, 0.25, 1}); err != nil {
				t.Error(err)
			}
		}
		_ = stream.CloseSend()
	})
	touch(t, folder+"/down")
	await(t, "the service", func() bool { return ask() == nil })
	for r := range rows {
		result, err := stream.Recv()
		if err != nil || result.Err != nil || math.Abs(result.Predictions.Scores[0][0]-0.5) > 1e-2 {
			t.Fatal(r, result, err)
		}
	}
	group.Wait()
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, has func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if has() {
			return
		}
	}
	t.Fatal("waited in vain for", what)
}
