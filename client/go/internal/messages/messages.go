// Package messages counts the messages in serialized ones before they are parsed: a message of
// megabytes may hold millions of empty ones, each of which takes a hundred times its bytes.
package messages

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Errors of Unmarshal, beside those of proto.Unmarshal.
var (
	ErrTooMany   = errors.New("a message holds too many others")
	ErrMalformed = errors.New("a message is malformed")
)

const maxDepth = 32 // of messages in messages

// Unmarshal parses a message that holds no more than so many others.
func Unmarshal(data []byte, message proto.Message, most int) error {
	left := most
	if err := count(data, message.ProtoReflect().Descriptor(), &left, maxDepth); err != nil {
		return err
	}
	return proto.Unmarshal(data, message)
}

func count(data []byte, kind protoreflect.MessageDescriptor, left *int, depth int) error {
	if depth == 0 {
		return ErrTooMany
	}
	for len(data) > 0 {
		number, wire, size := protowire.ConsumeTag(data)
		if size < 0 {
			return ErrMalformed
		}
		data = data[size:]
		size = protowire.ConsumeFieldValue(number, wire, data)
		if size < 0 {
			return ErrMalformed
		}
		value := data[:size]
		data = data[size:]
		field := kind.Fields().ByNumber(number)
		if field == nil || field.Kind() != protoreflect.MessageKind || wire != protowire.BytesType {
			continue
		}
		if *left--; *left < 0 {
			return ErrTooMany
		}
		inner, size := protowire.ConsumeBytes(value)
		if size < 0 {
			return ErrMalformed
		}
		if err := count(inner, field.Message(), left, depth-1); err != nil {
			return err
		}
	}
	return nil
}
