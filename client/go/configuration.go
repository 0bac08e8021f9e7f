package sealserve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"

	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/item"
	"sealserve.example/sealserve/internal/layout"
	"sealserve.example/sealserve/internal/model"
	"sealserve.example/sealserve/internal/printable"
	pb "sealserve.example/sealserve/internal/sealservev1"
	"sealserve.example/sealserve/internal/steps"
)

// While a service is updated, some of its replicas serve the old version of a model and some the new
// one. A client that knows both needs no call to go from one to the other.
const (
	// A hostile service could name new configurations without end.
	maxConfigurations = 8
	maxWithSteps      = 2 // each may take hundreds of megabytes
)

// configuration is a description of the model, and the codecs that have been made for it.
type configuration struct {
	model  *model.Model
	codecs map[*model.Offer]*item.Codec
}

// configurations are those that a client knows, the last one used most recently.
type configurations struct {
	current *configuration
	known   []*configuration
}

// use makes the configuration of an id the current one; nil if it is not known.
func (c *configurations) use(id string) *configuration {
	for i, known := range c.known {
		if known.model.ConfigID == id {
			c.known = append(append(c.known[:i:i], c.known[i+1:]...), known)
			c.current = known
			return known
		}
	}
	return nil
}

// add makes a description the current one, in the place of the one that was used least recently.
func (c *configurations) add(m *model.Model) *configuration {
	if known := c.use(m.ConfigID); known != nil {
		return known
	}
	withSteps, oldestWithSteps := 0, -1
	for i, known := range c.known {
		if known.model.Steps != nil {
			withSteps++
			if oldestWithSteps < 0 {
				oldestWithSteps = i
			}
		}
	}
	switch {
	case m.Steps != nil && withSteps >= maxWithSteps:
		c.known = append(c.known[:oldestWithSteps:oldestWithSteps], c.known[oldestWithSteps+1:]...)
	case len(c.known) >= maxConfigurations:
		c.known = c.known[1:]
	}
	c.current = &configuration{model: m, codecs: make(map[*model.Offer]*item.Codec)}
	c.known = append(c.known, c.current)
	return c.current
}

// use makes a description the current one.
func (c *Client) use(m *model.Model) *configuration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.configurations.add(m)
}

// follow returns the configuration that a replica names, which is the current one from then on. If a
// replica answers that serves another one only, that one is returned.
func (c *Client) follow(ctx context.Context, id string) (*configuration, error) {
	if err := c.asking.lock(ctx); err != nil {
		return nil, err
	}
	defer c.asking.unlock()
	c.mu.Lock()
	known, name := c.configurations.use(id), c.configurations.current.model.Name
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	m, err := c.describe(ctx, name, id)
	if err != nil {
		return nil, err
	}
	return c.use(m), nil
}

// describe gets a description of the model, with the steps that it names. A replica of another
// version does not have these steps: the description that it names is asked for then.
func (c *Client) describe(ctx context.Context, name, id string) (*model.Model, error) {
	for changes := 1; ; changes++ {
		m, err := c.describeOnce(ctx, name, id)
		if err == nil {
			err = c.fetchSteps(ctx, m)
		}
		var stale *StaleConfigError
		if !errors.As(err, &stale) {
			return m, err
		}
		if err := sleep(ctx, changeDelay(changes)); err != nil {
			return nil, err
		}
		name, id = m.Name, stale.CurrentConfigID
	}
}

func (c *Client) describeOnce(ctx context.Context, name, id string) (*model.Model, error) {
	var response *pb.GetModelResponse
	err := c.retry(ctx, func() (err error) {
		response, err = c.models.GetModel(ctx, &pb.GetModelRequest{Model: name, ConfigId: id})
		return err
	})
	if err != nil {
		return nil, err
	}
	message := response.GetModel()
	m, err := model.FromProto(message)
	if err != nil {
		return nil, &ParameterError{err}
	}
	if name != "" && m.Name != name {
		return nil, &ParameterError{fmt.Errorf("the service described model %q in place of %q", m.Name, name)}
	}
	if unknown, isUnknown := model.UnknownRequirement(message); isUnknown {
		return nil, &RequirementError{fmt.Errorf("model %q requires %q, which this version lacks: update the module", m.Name,
			printable.Text(unknown, columnCharacters))}
	}
	return m, nil
}

// fetchSteps gets the steps that a description names, unless they are known.
func (c *Client) fetchSteps(ctx context.Context, m *model.Model) error {
	if m.StepsID == "" {
		return nil
	}
	program := c.knownSteps(m.StepsID)
	if program == nil {
		var data []byte
		err := c.retry(ctx, func() (err error) {
			data, err = c.readSteps(ctx, m)
			return err
		})
		if err != nil {
			return err
		}
		if digest := sha256.Sum256(data); hex.EncodeToString(digest[:]) != m.StepsID {
			return &ParameterError{fmt.Errorf("model %q: its steps do not have the SHA-256 that it describes", m.Name)}
		}
		program, err = steps.Parse(data)
		if errors.Is(err, steps.ErrUnknown) {
			return &RequirementError{err}
		}
		if err != nil {
			return &ParameterError{err}
		}
	}
	if err := m.SetSteps(program); err != nil {
		return &ParameterError{err}
	}
	return nil
}

func (c *Client) knownSteps(id string) *steps.Program {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range c.configurations.known {
		if known.model.StepsID == id {
			return known.model.Steps
		}
	}
	return nil
}

// readSteps reads as many bytes as the description says: a hostile service might never stop.
func (c *Client) readSteps(ctx context.Context, m *model.Model) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.models.GetInputSteps(ctx, &pb.GetInputStepsRequest{
		Model: m.Name, StepsId: m.StepsID, ConfigId: m.ConfigID,
	})
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, m.StepsBytes)
	for {
		response, err := stream.Recv()
		piece := response.GetPiece()
		switch {
		case errors.Is(err, io.EOF) && len(data) == m.StepsBytes:
			return data, nil
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case err != nil || len(piece) == 0 || len(data)+len(piece) > m.StepsBytes:
			return nil, &ParameterError{errors.New("the service sent steps of another size than its description says")}
		}
		data = append(data, piece...)
	}
}

// What a byte takes, in seconds: to a service on this machine, to any other, and to encrypt or
// decrypt. Offers are chosen by them and by the published costs.
const (
	localByte  = 8e-9
	remoteByte = 80e-9
	cryptoByte = 7e-9
)

// codec returns the codec for so many rows: of the offer that takes them in the least time.
func (c *Client) codec(known *configuration, rows int) (*item.Codec, error) {
	offer, err := c.choose(known.model, rows)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed {
		return nil, ErrClosed
	}
	if codec := known.codecs[offer]; codec != nil {
		return codec, nil
	}
	key, err := c.secretKey(offer)
	if err != nil {
		return nil, &ParameterError{err}
	}
	codec := item.NewCodec(known.model, offer, key, c.form())
	known.codecs[offer] = codec
	return codec, nil
}

// secretKey returns the key of an offer's ring. It needs the lock.
func (c *Client) secretKey(offer *model.Offer) (*cipher.SecretKey, error) {
	for _, key := range c.secretKeys {
		if key.Fits(offer.Parameters) {
			return key, nil
		}
	}
	key, err := cipher.Generate(offer.Parameters)
	if err != nil {
		return nil, err
	}
	c.secretKeys = append(c.secretKeys, key)
	return key, nil
}

func (c *Client) form() cipher.Form {
	switch {
	case c.options.uploads != nil:
		return *c.options.uploads
	case c.isLocal:
		return cipher.Full
	}
	return cipher.Packed
}

// choose returns, of each layout, the offer that the service prefers, and of those the fastest.
func (c *Client) choose(m *model.Model, rows int) (*model.Offer, error) {
	preferred := make(map[layout.Kind]*model.Offer)
	for _, offer := range m.Offers {
		kind := offer.Layout.Kind
		isWanted := (c.options.layout == 0 || c.options.layout == kind) &&
			(c.options.parameterSet == "" || c.options.parameterSet == offer.Parameters.Set)
		if isWanted && preferred[kind] == nil {
			preferred[kind] = offer
		}
	}
	best, least := (*model.Offer)(nil), math.Inf(1)
	for _, kind := range []layout.Kind{layout.Row, layout.Column} {
		if offer := preferred[kind]; offer != nil {
			if seconds := c.seconds(offer, rows); best == nil || seconds < least {
				best, least = offer, seconds
			}
		}
	}
	if best == nil {
		return nil, &ParameterError{fmt.Errorf("model %q is not offered in a way that this client is to use", m.Name)}
	}
	return best, nil
}

// seconds estimates how long rows take by an offer.
func (c *Client) seconds(offer *model.Offer, rows int) float64 {
	items := (rows + offer.RowsPerItem - 1) / offer.RowsPerItem
	sent, byteTime := float64(offer.RequestBytes), remoteByte
	if c.isLocal {
		byteTime = localByte
	}
	if c.form() != cipher.Full {
		sent /= 2
	}
	crypto := cryptoByte * float64(offer.RequestBytes+offer.ReplyBytes)
	return float64(items) * (offer.ServerSeconds + crypto + byteTime*(sent+float64(offer.ReplyBytes)))
}
