// Package bitpack packs unsigned integers of a fixed number of bits into bytes: the least
// significant bit first, as PackedPair in prediction.proto describes.
package bitpack

import (
	"encoding/binary"
	"errors"
)

// MaxBits is the greatest number of bits of an integer.
const MaxBits = 96

// Errors of Unpack.
var (
	ErrLength = errors.New("packed integers have another length")
	ErrRest   = errors.New("a bit behind the last integer is set")
)

// Bytes is the number of bytes of so many integers.
func Bytes(count, bits int) int { return (count*bits + 7) / 8 }

// Pack appends integers of at most 64 bits.
func Pack(to []byte, values []uint64, bits int) []byte {
	var buffer uint64
	filled := 0
	for _, value := range values {
		buffer |= value << filled
		if filled+bits < 64 {
			filled += bits
			continue
		}
		to = binary.LittleEndian.AppendUint64(to, buffer)
		buffer = value >> (64 - filled)
		filled += bits - 64
	}
	for ; filled > 0; filled -= 8 {
		to = append(to, byte(buffer))
		buffer >>= 8
	}
	return to
}

// Uint128 is an unsigned integer of 128 bits.
type Uint128 struct{ Hi, Lo uint64 }

// Unpack reads so many integers of 1 to MaxBits bits. There must be nothing else.
func Unpack(data []byte, bits, count int) ([]Uint128, error) {
	if len(data) != Bytes(count, bits) {
		return nil, ErrLength
	}
	if rest := count * bits % 8; rest != 0 && data[len(data)-1]>>rest != 0 {
		return nil, ErrRest
	}
	const spare = 16 // two words are read at a time
	padded := make([]byte, len(data)+spare)
	copy(padded, data)
	values := make([]Uint128, count)
	maskLo, maskHi := masks(bits)
	for i := range values {
		at := i * bits
		shift := uint(at % 8)
		at /= 8
		lo := binary.LittleEndian.Uint64(padded[at:])
		hi := binary.LittleEndian.Uint64(padded[at+8:])
		values[i] = Uint128{Hi: hi >> shift & maskHi, Lo: (lo>>shift | hi<<(64-shift)) & maskLo}
	}
	return values, nil
}

func masks(bits int) (lo, hi uint64) {
	if bits <= 64 {
		return ^uint64(0) >> (64 - bits), 0
	}
	return ^uint64(0), ^uint64(0) >> (128 - bits)
}
