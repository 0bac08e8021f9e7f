package sealserve

import (
	"crypto/tls"
	"time"

	"google.golang.org/grpc"

	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/layout"
)

// defaultTimeout is the time for a call whose context has no deadline.
const defaultTimeout = 30 * time.Second

// Option changes how a client works.
type Option func(*options)

type options struct {
	model        string
	token        string
	tls          *tls.Config
	insecure     bool
	timeout      time.Duration
	clip         bool
	layout       layout.Kind // 0 for any
	parameterSet string
	uploads      *cipher.Form
	dial         []grpc.DialOption
}

// WithModel names the model. It may be left out when the service has one model only.
func WithModel(name string) Option { return func(o *options) { o.model = name } }

// WithToken sends a token with every call. It travels with TLS, or to this machine; see WithInsecure.
func WithToken(token string) Option { return func(o *options) { o.token = token } }

// WithTLS asks for TLS with these settings: authorities, a client certificate, a server name. Without
// it the client speaks TLS to other machines, and trusts the authorities of the system.
func WithTLS(config *tls.Config) Option { return func(o *options) { o.tls = config.Clone() } }

// WithInsecure allows plaintext to other machines, and a token in it. Use it only if something else
// protects the connection.
func WithInsecure() Option { return func(o *options) { o.insecure = true } }

// WithTimeout sets the time for calls whose context has no deadline: 30 seconds by default. Calls of
// several items, and streams, may take so long without progress.
func WithTimeout(timeout time.Duration) Option { return func(o *options) { o.timeout = timeout } }

// WithClip moves values outside the model's range to its nearest end instead of refusing them. Scores
// of such rows have no guarantee.
func WithClip() Option { return func(o *options) { o.clip = true } }

// Layout is a way to lay out rows in ciphertexts.
type Layout int

// The layouts.
const (
	// RowLayout is for one row or a few, with the lowest latency.
	RowLayout Layout = Layout(layout.Row)
	// ColumnLayout is for thousands of rows, with the highest throughput.
	ColumnLayout Layout = Layout(layout.Column)
)

// WithLayout uses offers of this layout only. By default the client takes the one that takes so many
// rows in the least time.
func WithLayout(l Layout) Option { return func(o *options) { o.layout = layout.Kind(l) } }

// WithParameterSet uses the offer of this parameter set only, such as "row-2048-54".
func WithParameterSet(name string) Option { return func(o *options) { o.parameterSet = name } }

// Upload is a form of ciphertexts.
type Upload int

// The forms of ciphertexts. They tell the service equally little.
const (
	// FullUpload sends both polynomials.
	FullUpload Upload = Upload(cipher.Full)
	// SeededUpload sends half the bytes: a seed stands for the second polynomial.
	SeededUpload Upload = Upload(cipher.Seeded)
	// PackedUpload sends seeded ciphertexts without headers, packed to the bit, to a service that takes
	// them. Other services get seeded ones.
	PackedUpload Upload = Upload(cipher.Packed)
)

// WithUpload chooses the form of ciphertexts. By default they are full to a service on this machine,
// which saves it the expansion of seeds, and packed to any other.
func WithUpload(form Upload) Option {
	return func(o *options) { chosen := cipher.Form(form); o.uploads = &chosen }
}

// WithDialOptions passes options to gRPC, after those of the client.
func WithDialOptions(dial ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, dial...) }
}
