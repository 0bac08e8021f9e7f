package cipher

import (
	"math/big"
	"math/bits"
	"sync"

	"github.com/tuneinsight/lattigo/v6/core/rlwe"
	"github.com/tuneinsight/lattigo/v6/ring"

	"sealserve.example/sealserve/internal/parameters"
	"sealserve.example/sealserve/internal/seal"
)

// Form is a form of ciphertexts.
type Form int

// The forms of ciphertexts.
const (
	// Full ciphertexts have both polynomials.
	Full Form = iota
	// Seeded ciphertexts have a seed in the place of the second polynomial: half the bytes.
	Seeded
	// Packed ciphertexts are seeded ones without headers, packed to the bit. Where that saves less
	// than a fifth, seeded ones are made instead.
	Packed
)

// Encryptor encrypts plaintexts with a secret key. Goroutines may share it.
type Encryptor struct {
	parameters *parameters.Parameters
	form       Form
	bits       int // of the greatest data prime
	object     seal.Object
	ringQ      *ring.Ring
	// delta is q / t, rounded down, by prime, and rest is q mod t.
	delta []uint64
	rest  uint64
	half  uint64
	pool  sync.Pool
}

// workspace is what one encryption at a time needs.
type workspace struct {
	lattigo    *rlwe.Encryptor
	ciphertext *rlwe.Ciphertext
	expanded   *expansion
}

// NewEncryptor makes an encryptor. The key has to fit the parameters.
func NewEncryptor(p *parameters.Parameters, key *SecretKey, form Form) *Encryptor {
	e := &Encryptor{
		parameters: p, form: form,
		object: seal.Object{ParmsID: p.ParmsID, N: p.N, Primes: p.DataPrimes},
		ringQ:  key.lattigo.RingQ().AtLevel(p.DataPrimes - 1),
		half:   (p.T + 1) / 2,
	}
	t := new(big.Int).SetUint64(p.T)
	delta, rest := new(big.Int).DivMod(parameters.Product(p.Primes[:p.DataPrimes]), t, new(big.Int))
	e.rest = rest.Uint64()
	for _, prime := range p.Primes[:p.DataPrimes] {
		e.bits = max(e.bits, bits.Len64(prime))
		e.delta = append(e.delta, new(big.Int).Mod(delta, new(big.Int).SetUint64(prime)).Uint64())
	}
	if e.form == Packed && !e.object.Packs(e.bits) {
		e.form = Seeded
	}
	e.pool.New = func() any {
		w := &workspace{
			lattigo:    rlwe.NewEncryptor(key.lattigo, key.key),
			ciphertext: rlwe.NewCiphertext(key.lattigo, 1, p.DataPrimes-1),
		}
		if e.form != Full {
			w.expanded = &expansion{residues: e.ringQ.NewPoly().Coeffs}
			w.lattigo = w.lattigo.WithPRNG(w.expanded)
		}
		w.ciphertext.IsNTT = false
		return w
	}
	return e
}

// CiphertextBytes is the length of a ciphertext.
func (e *Encryptor) CiphertextBytes() int {
	switch e.form {
	case Seeded:
		return e.object.SeededBytes()
	case Packed:
		return e.object.PackedBytes(e.bits)
	default:
		return e.object.FullBytes()
	}
}

// Encrypt encrypts N coefficients, each below t.
func (e *Encryptor) Encrypt(plaintext []uint64) []byte {
	w := e.pool.Get().(*workspace)
	defer e.pool.Put(w)
	seed := [seal.SeedBytes]byte{}
	if e.form != Full {
		seed = newSeed()
		w.expanded.next = 0
		seal.Expand(seed, e.parameters.Primes, w.expanded.residues)
	}
	encryptZero(w.lattigo, w.ciphertext)
	c0, c1 := w.ciphertext.Value[0], w.ciphertext.Value[1]
	e.addScaled(c0, plaintext)
	switch e.form {
	case Seeded:
		return e.object.Seeded(c0.Coeffs, seed)
	case Packed:
		return e.object.Packed(c0.Coeffs, seed, e.bits)
	default:
		return e.object.Full(c0.Coeffs, c1.Coeffs)
	}
}

// addScaled adds round(q m / t) = (q / t) m + ((q mod t) m + t / 2) / t, where divisions round down.
func (e *Encryptor) addScaled(to ring.Poly, plaintext []uint64) {
	for i, m := range plaintext {
		hi, lo := bits.Mul64(e.rest, m)
		lo, carry := bits.Add64(lo, e.half, 0)
		correction, _ := bits.Div64(hi+carry, lo, e.parameters.T)
		for j, residues := range to.Coeffs {
			subring := e.ringQ.SubRings[j]
			p := subring.Modulus
			sum := ring.BRed(m, e.delta[j], p, subring.BRedConstant) + correction%p + residues[i]
			residues[i] = ring.BRedAdd(sum, p, subring.BRedConstant)
		}
	}
}
