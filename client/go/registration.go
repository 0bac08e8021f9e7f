package sealserve

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"sealserve.example/sealserve/internal/item"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

const (
	keyTTL     = time.Hour // longer is of no use: most keys are not needed once their client has ended
	chunkBytes = 1 << 20
	maxLosses  = 4 // of a key, while an item is sent again
)

// register registers the public key of a codec, if it has one that is not registered.
func (c *Client) register(ctx context.Context, codec *item.Codec) error {
	if c.isRegistered(codec.KeyID) {
		return nil
	}
	if err := c.registering.lock(ctx); err != nil {
		return err
	}
	defer c.registering.unlock()
	if c.isRegistered(codec.KeyID) {
		return nil
	}
	return c.upload(ctx, codec)
}

// registerAgain registers a key that the service has lost, unless another goroutine has done so.
func (c *Client) registerAgain(ctx context.Context, codec *item.Codec) error {
	if err := c.registering.lock(ctx); err != nil {
		return err
	}
	defer c.registering.unlock()
	err := c.retry(ctx, func() error {
		_, err := c.keys.GetKey(ctx, &pb.GetKeyRequest{KeyId: codec.KeyID})
		return err
	})
	var lost *KeyNotFoundError
	if !errors.As(err, &lost) {
		return err
	}
	return c.upload(ctx, codec)
}

func (c *Client) isRegistered(keyID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registered[keyID]
}

func (c *Client) upload(ctx context.Context, codec *item.Codec) error {
	err := c.retry(ctx, func() error { return c.uploadOnce(ctx, codec) })
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.registered[codec.KeyID] = true
	return nil
}

func (c *Client) uploadOnce(ctx context.Context, codec *item.Codec) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.keys.RegisterKey(ctx)
	if err != nil {
		return err
	}
	header := &pb.KeyHeader{
		KeyId: codec.KeyID, Kind: pb.KeyKind_KEY_KIND_PUBLIC_ENCRYPTION_KEY,
		ParameterSet: codec.Offer.Parameters.Set, ByteCount: uint64(len(codec.PublicKey)), Ttl: durationpb.New(keyTTL),
	}
	for first := 0; first < len(codec.PublicKey); first += chunkBytes {
		part := codec.PublicKey[first:min(first+chunkBytes, len(codec.PublicKey))]
		request := &pb.RegisterKeyRequest{Header: header, Chunk: &pb.KeyChunk{Offset: uint64(first), Data: part}}
		if stream.Send(request) != nil {
			break // CloseAndRecv has the reason
		}
		header = nil
	}
	_, err = stream.CloseAndRecv()
	return err
}
