// Package seal reads and writes what Microsoft SEAL 4.x does, without SEAL: its serialized
// ciphertexts and public keys, the expansion of its seeds, and the order of its NTT form.
//
// Chunk in prediction.proto and KEY_KIND_PUBLIC_ENCRYPTION_KEY in keys.proto specify the bytes.
package seal

import (
	"encoding/binary"
	"math"

	"sealserve.example/sealserve/internal/bitpack"
)

const (
	// SeedBytes is the length of a seed.
	SeedBytes = 64

	headerBytes   = 16
	seedInfoBytes = headerBytes + 1 + SeedBytes
	prefixBytes   = 113 // what precedes the residues
	blake2Xb      = 1
)

// Object describes a ciphertext or a public key: two polynomials of one ring.
type Object struct {
	// ParmsID is that of the level.
	ParmsID [32]byte
	// N is the degree, and Primes the number of primes.
	N, Primes int
	// IsNTT tells whether polynomials are in NTT form: those of keys are.
	IsNTT bool
}

// words is the number of residues of a polynomial.
func (o Object) words() int { return o.N * o.Primes }

// FullBytes is the length of an object that has both polynomials.
func (o Object) FullBytes() int { return prefixBytes + 16*o.words() }

// SeededBytes is the length of an object that has a seed in the place of the second polynomial.
func (o Object) SeededBytes() int { return prefixBytes + 8*o.words() + seedInfoBytes }

// PackedBytes is the length of a packed ciphertext, whose residues have so many bits.
func (o Object) PackedBytes(bits int) int {
	return len(o.ParmsID) + SeedBytes + bitpack.Bytes(o.words(), bits)
}

// Packs tells whether there are packed ciphertexts: where they are shorter than seeded ones by a
// fifth or more.
func (o Object) Packs(bits int) bool { return 5*o.PackedBytes(bits) <= 4*o.SeededBytes() }

// Full writes an object with both polynomials, each of residues by prime.
func (o Object) Full(c0, c1 [][]uint64) []byte {
	to := o.appendPrefix(make([]byte, 0, o.FullBytes()), 2*o.words(), 0)
	return appendResidues(appendResidues(to, c0), c1)
}

// Seeded writes an object with the first polynomial and the seed of the second one.
func (o Object) Seeded(c0 [][]uint64, seed [SeedBytes]byte) []byte {
	to := o.appendPrefix(make([]byte, 0, o.SeededBytes()), o.words(), seedInfoBytes)
	to = appendHeader(appendResidues(to, c0), seedInfoBytes)
	return append(append(to, blake2Xb), seed[:]...)
}

// Packed writes a packed ciphertext, whose residues have so many bits.
func (o Object) Packed(c0 [][]uint64, seed [SeedBytes]byte, bits int) []byte {
	to := make([]byte, 0, o.PackedBytes(bits)+8)
	to = append(append(to, o.ParmsID[:]...), seed[:]...)
	joined := make([]uint64, 0, o.words())
	for _, residues := range c0 {
		joined = append(joined, residues...)
	}
	return bitpack.Pack(to, joined, bits)
}

// appendPrefix writes what precedes so many residues, with so many bytes behind them.
func (o Object) appendPrefix(to []byte, words, behind int) []byte {
	to = appendHeader(to, prefixBytes+8*words+behind)
	to = append(to, o.ParmsID[:]...)
	var form byte
	if o.IsNTT {
		form = 1
	}
	to = append(to, form)
	members := [...]uint64{2, uint64(o.N), uint64(o.Primes), math.Float64bits(1), 1}
	for _, member := range members {
		to = binary.LittleEndian.AppendUint64(to, member)
	}
	to = appendHeader(to, headerBytes+8+8*words)
	return binary.LittleEndian.AppendUint64(to, uint64(words))
}

// appendHeader writes the header of an uncompressed object of so many bytes.
func appendHeader(to []byte, total int) []byte {
	to = append(to, 0x5e, 0xa1, headerBytes, 4, 4, 0, 0, 0)
	return binary.LittleEndian.AppendUint64(to, uint64(total))
}

func appendResidues(to []byte, polynomial [][]uint64) []byte {
	for _, residues := range polynomial {
		for _, residue := range residues {
			to = binary.LittleEndian.AppendUint64(to, residue)
		}
	}
	return to
}
