package seal

import (
	"encoding/binary"
	"math"

	"golang.org/x/crypto/blake2b"
)

const blockBytes = 4096

// Expand writes the values into which a seed expands: as many as polynomial has, by prime.
//
// Source: SEAL native/src/seal/util/rlwe.cpp (sample_poly_uniform) and randomgen.cpp.
func Expand(seed [SeedBytes]byte, primes []uint64, polynomial [][]uint64) {
	stream := words{seed: seed, at: blockBytes}
	for _, values := range polynomial {
		for i := range values {
			values[i] = stream.next()
		}
	}
	for k, values := range polynomial {
		p := primes[k]
		end := math.MaxUint64 - math.MaxUint64%p - 1
		for i, word := range values {
			for word >= end {
				word = stream.next()
			}
			values[i] = word % p
		}
	}
}

// words is the stream of words of a seed.
type words struct {
	seed  [SeedBytes]byte
	block uint64
	bytes [blockBytes]byte
	at    int
}

func (w *words) next() uint64 {
	if w.at == blockBytes {
		w.fill()
	}
	word := binary.LittleEndian.Uint64(w.bytes[w.at:])
	w.at += 8
	return word
}

// fill computes the next block. The XOF's errors are for lengths that do not occur here.
func (w *words) fill() {
	xof, err := blake2b.NewXOF(blockBytes, w.seed[:])
	if err != nil {
		panic(err)
	}
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], w.block)
	if _, err := xof.Write(number[:]); err != nil {
		panic(err)
	}
	if _, err := xof.Read(w.bytes[:]); err != nil {
		panic(err)
	}
	w.block, w.at = w.block+1, 0
}
