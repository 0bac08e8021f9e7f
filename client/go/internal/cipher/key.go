// Package cipher makes keys, encrypts and decrypts. The RLWE of all three is Lattigo's; the bytes
// are SEAL's (package seal).
package cipher

import (
	"crypto/rand"
	"fmt"
	"math/bits"
	"sync"

	"github.com/tuneinsight/lattigo/v6/core/rlwe"
	"github.com/tuneinsight/lattigo/v6/ring"

	"sealserve.example/sealserve/internal/parameters"
	"sealserve.example/sealserve/internal/seal"
)

// secretDistribution gives each of -1, 0 and 1 a third, as SEAL does.
var secretDistribution = ring.Ternary{P: 2.0 / 3}

// noiseDistribution is SEAL's clipped normal distribution: no coefficient is beyond 19. Scores are
// exact for noise up to 21.
var noiseDistribution = ring.DiscreteGaussian{Sigma: 3.2, Bound: 19.2}

// SecretKey is a ternary secret key of a ring. It serves all parameters of the ring.
type SecretKey struct {
	ring *parameters.Parameters
	// lattigo has all primes of keys in Q. Ciphertexts are those of lower levels.
	lattigo rlwe.Parameters
	key     *rlwe.SecretKey

	publicOnce sync.Once
	publicKey  []byte
}

// Generate makes a new secret key for the ring of some parameters.
func Generate(p *parameters.Parameters) (*SecretKey, error) {
	k, err := newSecretKey(p)
	if err != nil {
		return nil, err
	}
	k.key = rlwe.NewKeyGenerator(k.lattigo).GenSecretKeyNew()
	return k, nil
}

// FromCoefficients makes the secret key that has these coefficients, each -1, 0 or 1.
func FromCoefficients(p *parameters.Parameters, coefficients []int8) (*SecretKey, error) {
	if len(coefficients) != p.N {
		return nil, fmt.Errorf("a key of degree %d has %d coefficients", p.N, len(coefficients))
	}
	k, err := newSecretKey(p)
	if err != nil {
		return nil, err
	}
	k.key = rlwe.NewSecretKey(k.lattigo)
	for j, prime := range p.Primes {
		for i, c := range coefficients {
			k.key.Value.Q.Coeffs[j][i] = (prime + uint64(int64(c))) % prime
		}
	}
	ringQ := k.lattigo.RingQ()
	ringQ.NTT(k.key.Value.Q, k.key.Value.Q)
	ringQ.MForm(k.key.Value.Q, k.key.Value.Q)
	return k, nil
}

func newSecretKey(p *parameters.Parameters) (*SecretKey, error) {
	lattigo, err := rlwe.NewParametersFromLiteral(rlwe.ParametersLiteral{
		LogN: bits.Len(uint(p.N)) - 1, Q: p.Primes, Xs: secretDistribution, Xe: noiseDistribution,
	})
	if err != nil {
		return nil, fmt.Errorf("parameter set %q: %w", p.Set, err)
	}
	return &SecretKey{ring: p, lattigo: lattigo}, nil
}

// String does not show the key.
func (k *SecretKey) String() string { return fmt.Sprintf("a secret key of degree %d", k.ring.N) }

// GoString does not show the key.
func (k *SecretKey) GoString() string { return k.String() }

// Fits tells whether it is a key of these parameters.
func (k *SecretKey) Fits(p *parameters.Parameters) bool { return k.ring.SharesRing(p) }

// PublicKey is the public encryption key, a seeded SEAL object. It is made once.
func (k *SecretKey) PublicKey() []byte {
	k.publicOnce.Do(func() { k.publicKey = k.newPublicKey() })
	return k.publicKey
}

// newPublicKey makes an encryption (b, a) of zero, where a is the expansion of a new seed, in NTT
// form.
func (k *SecretKey) newPublicKey() []byte {
	ringQ, primes := k.lattigo.RingQ(), k.ring.Primes
	seed := newSeed()
	inOrder := ringQ.NewPoly() // SEAL's
	seal.Expand(seed, primes, inOrder.Coeffs)
	a := ringQ.NewPoly()
	places := make([][]int, len(primes))
	for j, prime := range primes {
		places[j] = seal.Order(k.ring.N, prime, ringQ.SubRings[j].PrimitiveRoot)
		for i, place := range places[j] {
			a.Coeffs[j][place] = inOrder.Coeffs[j][i]
		}
	}
	zero := rlwe.NewCiphertext(k.lattigo, 1, k.lattigo.MaxLevel())
	zero.IsNTT = true
	encryptZero(rlwe.NewEncryptor(k.lattigo, k.key).WithPRNG(&expansion{residues: a.Coeffs}), zero)
	b := zero.Value[0]
	for j := range primes {
		for i, place := range places[j] {
			inOrder.Coeffs[j][i] = b.Coeffs[j][place]
		}
	}
	object := seal.Object{ParmsID: k.ring.KeyParmsID(), N: k.ring.N, Primes: len(primes), IsNTT: true}
	return object.Seeded(inOrder.Coeffs, seed)
}

// newSeed draws a seed. Two ciphertexts of one seed would give the difference of their plaintexts.
func newSeed() (seed [seal.SeedBytes]byte) {
	// It never returns an error: see crypto/rand.
	_, _ = rand.Read(seed[:])
	return seed
}
