package sealserve

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that this one wraps
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"sealserve.example/sealserve/internal/messages"
)

const (
	// A group of scores has about a megabyte, but at least one polynomial pair.
	maxReplyBytes   = 16 << 20
	maxHeaderBytes  = 64 << 10
	maxMessages     = 1 << 21 // in one response: a model may have a million columns
	pingAfter       = 10 * time.Second
	openingTime     = 5 * time.Second
	firstBackoff    = 50 * time.Millisecond
	greatestBackoff = 2 * time.Second
)

var (
	hostAndPort = regexp.MustCompile(`^(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s\[\]:/@,?#]+)):([0-9]{1,5})$`)
	tokenForm   = regexp.MustCompile(`^[!-~]+$`)
)

// address is where a service is.
type address struct {
	target  string // what gRPC takes
	isLocal bool   // whether traffic stays on this machine
}

// parseAddress parses HOST:PORT, dns:///HOST:PORT or unix:PATH.
func parseAddress(text string) (address, error) {
	if path, isUnix := strings.CutPrefix(text, "unix:"); isUnix {
		if path == "" || strings.ContainsRune(path, 0) {
			return address{}, inputError(BadArgument, -1, -1, "address %q is not unix:PATH", text)
		}
		return address{text, true}, nil
	}
	match := hostAndPort.FindStringSubmatch(strings.TrimPrefix(text, "dns:///"))
	if match == nil {
		return address{}, inputError(BadArgument, -1, -1, "address %q is not HOST:PORT, dns:///HOST:PORT or unix:PATH", text)
	}
	if port, err := strconv.Atoi(match[3]); err != nil || port >= 1<<16 {
		return address{}, inputError(BadArgument, -1, -1, "address %q has a port above 65535", text)
	}
	host := match[1] + match[2]
	ip := net.ParseIP(host)
	isLocal := strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
	return address{"dns:///" + strings.TrimPrefix(text, "dns:///"), isLocal}, nil
}

// connect opens a connection, without waiting for it.
func connect(to address, o *options) (*grpc.ClientConn, error) {
	if o.insecure && o.tls != nil {
		return nil, &CredentialsError{"insecure means plaintext, which uses no certificates: leave out one of them"}
	}
	if o.token != "" && !tokenForm.MatchString(o.token) {
		return nil, &CredentialsError{"the token is malformed: copy it again from where it was issued"}
	}
	usesTLS := o.tls != nil || !(o.insecure || to.isLocal)
	transport := insecure.NewCredentials()
	if usesTLS {
		config := o.tls
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		transport = credentials.NewTLS(config)
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: firstBackoff, Multiplier: 1.5, Jitter: 0.2, MaxDelay: greatestBackoff,
			},
			MinConnectTimeout: openingTime,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingAfter}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(checkedCodec{}), grpc.MaxCallRecvMsgSize(maxReplyBytes)),
	}
	if to.isLocal {
		dial = append(dial, grpc.WithNoProxy()) // a proxy is another machine
	}
	if o.token != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(token{o.token, usesTLS}))
	}
	return grpc.NewClient(to.target, append(dial, o.dial...)...)
}

// token sends a token with every call. connect has checked that it may travel.
type token struct {
	text    string
	usesTLS bool
}

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + t.text}, nil
}

func (t token) RequireTransportSecurity() bool { return t.usesTLS }

// String does not show the token.
func (t token) String() string { return "a token" }

// checkedCodec is gRPC's codec of protobuf, which counts messages before it parses them.
type checkedCodec struct{}

func (checkedCodec) Name() string { return "proto" }

func (checkedCodec) Marshal(v any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2("proto").Marshal(v)
}

func (checkedCodec) Unmarshal(data mem.BufferSlice, v any) error {
	to, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", v)
	}
	return messages.Unmarshal(data.Materialize(), to, maxMessages)
}

// busyDelay returns how long to wait after so many refusals in a row. Delays grow and are random:
// clients that were refused together would otherwise come again together.
func busyDelay(busy Temporary, failures int) time.Duration {
	least := max(firstBackoff, busy.RetryAfter())
	return jittered(max(least, min(grown(least, failures), greatestBackoff)), 1, 2)
}

// breakDelay returns how long to wait after so many broken streams in a row.
func breakDelay(failures int) time.Duration {
	return jittered(min(grown(firstBackoff, failures), greatestBackoff), 0.5, 1.5)
}

// changeDelay returns how long to wait after so many changes in a row: at first not at all, as a
// change is no overload.
func changeDelay(changes int) time.Duration {
	const free = 2
	if changes <= free {
		return 0
	}
	return jittered(min(grown(2*time.Millisecond, changes-free), greatestBackoff), 0.5, 1.5)
}

func grown(least time.Duration, failures int) time.Duration {
	for range min(failures-1, 30) {
		least = least * 3 / 2
		if least > greatestBackoff {
			return greatestBackoff
		}
	}
	return least
}

func jittered(delay time.Duration, low, high float64) time.Duration {
	return time.Duration(float64(delay) * (low + (high-low)*rand.Float64()))
}

// sleep waits, unless the context ends before: it returns its error at once then.
func sleep(ctx context.Context, delay time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < delay {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
