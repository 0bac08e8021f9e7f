package cipher

import (
	"encoding/binary"
	"errors"
	"math/big"
	"math/bits"
	"sync"

	"github.com/tuneinsight/lattigo/v6/core/rlwe"
	"github.com/tuneinsight/lattigo/v6/ring"

	"sealserve.example/sealserve/internal/bitpack"
	"sealserve.example/sealserve/internal/parameters"
)

// Errors of polynomials that are refused before anything is decrypted, beside those of bitpack.
var (
	ErrLength  = errors.New("a polynomial has another length")
	ErrResidue = errors.New("a residue is at or above its prime")
)

// ReplyBits says how replies are packed: the bits of a coefficient of each polynomial, and the
// number of data primes to which they are lifted.
type ReplyBits struct{ C0, C1, Primes int }

// Decryptor decrypts replies with a secret key. Goroutines may share it.
type Decryptor struct {
	parameters *parameters.Parameters
	primes     []uint64 // to which replies are lifted
	c0, c1     reader
	scale      []scaling
	pool       sync.Pool
}

// reader reads a polynomial of so many coefficients into residues by prime.
type reader func(data []byte, count int, put func(prime, index int, residue uint64)) error

// scaling is what scales residues modulo one prime down to t.
type scaling struct {
	inverse  uint64 // of the product of the other primes
	constant [2]uint64
}

type decryption struct {
	lattigo    *rlwe.Decryptor
	ciphertext *rlwe.Ciphertext
	plaintext  *rlwe.Plaintext
}

// NewDecryptor makes a decryptor. The key has to fit the parameters. Replies are residues if bits
// is nil.
func NewDecryptor(p *parameters.Parameters, key *SecretKey, replyBits *ReplyBits) *Decryptor {
	d := &Decryptor{parameters: p, primes: p.Primes[:p.DataPrimes]}
	if replyBits == nil {
		d.c0 = residueReader(d.primes)
		d.c1 = d.c0
	} else {
		d.primes = d.primes[:replyBits.Primes]
		d.c0 = packedReader(d.primes, replyBits.C0)
		d.c1 = packedReader(d.primes, replyBits.C1)
	}
	q := parameters.Product(d.primes)
	for _, prime := range d.primes {
		modulus := new(big.Int).SetUint64(prime)
		others := new(big.Int).Div(q, modulus)
		d.scale = append(d.scale, scaling{
			inverse:  new(big.Int).ModInverse(others, modulus).Uint64(),
			constant: ring.GenBRedConstant(prime),
		})
	}
	level := len(d.primes) - 1
	d.pool.New = func() any {
		return &decryption{
			lattigo:    rlwe.NewDecryptor(key.lattigo, key.key),
			ciphertext: rlwe.NewCiphertext(key.lattigo, 1, level),
			plaintext:  rlwe.NewPlaintext(key.lattigo, level),
		}
	}
	return d
}

// Decrypt decrypts the coefficients at some places: c0 has only these, and c1 all N. It returns
// residues modulo t, or an error if the polynomials are malformed.
//
// What it does depends on the lengths alone, but for the time of divisions.
func (d *Decryptor) Decrypt(c0, c1 []byte, places []int) ([]uint64, error) {
	w := d.pool.Get().(*decryption)
	defer d.pool.Put(w)
	first, second := w.ciphertext.Value[0].Coeffs, w.ciphertext.Value[1].Coeffs
	for _, residues := range first {
		clear(residues)
	}
	err := d.c0(c0, len(places), func(prime, index int, residue uint64) { first[prime][places[index]] = residue })
	if err != nil {
		return nil, err
	}
	err = d.c1(c1, d.parameters.N, func(prime, index int, residue uint64) { second[prime][index] = residue })
	if err != nil {
		return nil, err
	}
	w.lattigo.Decrypt(w.ciphertext, w.plaintext)
	found := make([]uint64, len(places))
	for i, place := range places {
		found[i] = d.scaledDown(w.plaintext.Value.Coeffs, place)
	}
	return found, nil
}

// scaledDown computes round(t x / q) modulo t of the integer x modulo q that has these residues.
//
// With x_k the residue of x (q / p_k)^-1 modulo p_k, t x / q is the sum of t x_k / p_k, modulo t.
// Each has a whole part and a fraction, of 64 bits. Their loss is below 2^-57 for 128 primes, which
// is what the service leaves for it.
func (d *Decryptor) scaledDown(residues [][]uint64, place int) uint64 {
	t := d.parameters.T
	var whole, fraction uint64
	for k, p := range d.primes {
		x := ring.BRed(residues[k][place], d.scale[k].inverse, p, d.scale[k].constant)
		hi, lo := bits.Mul64(t, x)
		quotient, rest := bits.Div64(hi, lo, p)
		part, _ := bits.Div64(rest, 0, p)
		var carry uint64
		fraction, carry = bits.Add64(fraction, part, 0)
		whole += quotient + carry
	}
	return (whole + fraction>>63) % t
}

// residueReader reads residues as 64-bit integers, prime by prime.
func residueReader(primes []uint64) reader {
	return func(data []byte, count int, put func(prime, index int, residue uint64)) error {
		if len(data) != 8*len(primes)*count {
			return ErrLength
		}
		for k, p := range primes {
			for i := range count {
				residue := binary.LittleEndian.Uint64(data[8*(k*count+i):])
				if residue >= p {
					return ErrResidue
				}
				put(k, i, residue)
			}
		}
		return nil
	}
}

// packedReader reads packed coefficients and lifts them to primes.
func packedReader(primes []uint64, size int) reader {
	lift := NewLift(primes, size)
	return func(data []byte, count int, put func(prime, index int, residue uint64)) error {
		values, err := bitpack.Unpack(data, size, count)
		if err != nil {
			return err
		}
		for k := range primes {
			for i, value := range values {
				put(k, i, lift.Residue(k, value))
			}
		}
		return nil
	}
}
