package sealserve

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"sealserve.example/sealserve/internal/cipher"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

// Client asks one model for predictions. Goroutines may share it.
type Client struct {
	options     options
	isLocal     bool
	conn        *grpc.ClientConn
	models      pb.ModelServiceClient
	keys        pb.KeyServiceClient
	predictions pb.PredictionServiceClient

	mu             sync.Mutex
	configurations configurations
	secretKeys     []*cipher.SecretKey // one for each ring
	registered     map[string]bool     // by key id
	isClosed       bool

	// asking and registering keep goroutines from asking for the same thing at the same time.
	asking, registering semaphore
}

// semaphore is a mutex that a context ends the wait for.
type semaphore chan struct{}

func (s semaphore) lock(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s semaphore) unlock() { <-s }

// Dial connects to a service and gets the description of the model.
//
// The target is HOST:PORT, dns:///HOST:PORT or unix:PATH. The context ends Dial, not the client:
// close the client when it is no longer needed. A secret key is made here, and lives as long as the
// client.
func Dial(ctx context.Context, target string, opts ...Option) (*Client, error) {
	o := options{timeout: defaultTimeout}
	for _, option := range opts {
		option(&o)
	}
	to, err := parseAddress(target)
	if err != nil {
		return nil, err
	}
	conn, err := connect(to, &o)
	if err != nil {
		return nil, err
	}
	c := &Client{
		options: o, isLocal: to.isLocal, conn: conn,
		models: pb.NewModelServiceClient(conn), keys: pb.NewKeyServiceClient(conn),
		predictions: pb.NewPredictionServiceClient(conn),
		registered:  map[string]bool{"": true}, // open weights need no key
		asking:      make(semaphore, 1), registering: make(semaphore, 1),
	}
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	known, err := c.describe(ctx, o.model, "")
	if err == nil {
		_, err = c.codec(c.use(known), 1) // an offer is usable, and its secret key exists
	}
	if err != nil {
		return nil, joinClose(typedError(err), conn)
	}
	return c, nil
}

func joinClose(err error, conn *grpc.ClientConn) error {
	_ = conn.Close() // the first error is the one that counts
	return err
}

// Close ends the connection, and calls that are under way.
func (c *Client) Close() error {
	c.mu.Lock()
	wasClosed := c.isClosed
	c.isClosed = true
	c.secretKeys = nil
	c.mu.Unlock()
	if wasClosed {
		return nil
	}
	return c.conn.Close()
}

// String does not show the model's numbers.
func (c *Client) String() string { return "a client of " + c.conn.Target() }

// Model returns the description that the client uses now.
func (c *Client) Model() Model {
	c.mu.Lock()
	defer c.mu.Unlock()
	return describedModel(c.configurations.current.model)
}

// withTimeout gives a context without a deadline that of the client's options.
func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.options.timeout)
}

// checkOpen returns ErrClosed if the client has been closed.
func (c *Client) checkOpen() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed {
		return ErrClosed
	}
	return nil
}

// current is the configuration to encrypt for.
func (c *Client) current() *configuration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.configurations.current
}
