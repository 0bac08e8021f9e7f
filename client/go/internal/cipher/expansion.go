package cipher

import (
	"encoding/binary"
	"io"

	"github.com/tuneinsight/lattigo/v6/core/rlwe"
)

// expansion is the randomness from which Lattigo samples the second polynomial of an encryption of
// zero: what SEAL expands a seed into. Lattigo takes an integer of 64 bits for each residue, prime
// by prime, and takes another one only where it is not below the prime. These all are. So the
// polynomial is this very expansion.
type expansion struct {
	residues [][]uint64 // by prime, in Lattigo's order
	next     int
}

// Read fills p with the next residues.
func (x *expansion) Read(p []byte) (int, error) {
	n := len(x.residues[0])
	for at := 0; at < len(p); at += 8 {
		if x.next == n*len(x.residues) {
			return at, io.ErrUnexpectedEOF
		}
		binary.BigEndian.PutUint64(p[at:], x.residues[x.next/n][x.next%n])
		x.next++
	}
	return len(p), nil
}

// encryptZero has Lattigo encrypt zero into a ciphertext of the encryptor's parameters.
func encryptZero(encryptor *rlwe.Encryptor, ciphertext *rlwe.Ciphertext) {
	if err := encryptor.EncryptZero(ciphertext); err != nil {
		panic(err) // the encryptor has no key
	}
}
