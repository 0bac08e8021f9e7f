package sealserve

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/tuneinsight/lattigo/v6/ring"

	"sealserve.example/sealserve/internal/bitpack"
	"sealserve.example/sealserve/internal/parameters"
	"sealserve.example/sealserve/internal/seal"
)

const mostNoise = 21

// residuesOf reads polynomials of 64-bit residues by prime.
func residuesOf(data []byte, n, primes int) [][]uint64 {
	found := make([][]uint64, primes)
	for k := range found {
		found[k] = make([]uint64, n)
		for i := range found[k] {
			found[k][i] = binary.LittleEndian.Uint64(data[8*(k*n+i):])
		}
	}
	return found
}

// polynomialsOf reads a ciphertext in any of its forms.
func polynomialsOf(t *testing.T, p *parameters.Parameters, data []byte) (c0, c1 [][]uint64) {
	t.Helper()
	primes := p.Primes[:p.DataPrimes]
	object := seal.Object{ParmsID: p.ParmsID, N: p.N, Primes: p.DataPrimes}
	size := 0
	for _, prime := range primes {
		size = max(size, new(big.Int).SetUint64(prime).BitLen())
	}
	var seed [seal.SeedBytes]byte
	words := 8 * p.N * p.DataPrimes
	switch {
	case len(data) == object.FullBytes():
		return residuesOf(data[113:], p.N, p.DataPrimes), residuesOf(data[113+words:], p.N, p.DataPrimes)
	case len(data) == object.SeededBytes():
		c0 = residuesOf(data[113:], p.N, p.DataPrimes)
		copy(seed[:], data[len(data)-seal.SeedBytes:])
	case object.Packs(size) && len(data) == object.PackedBytes(size):
		values, err := bitpack.Unpack(data[96:], size, p.N*p.DataPrimes)
		if err != nil {
			t.Fatal(err)
		}
		if string(data[:32]) != string(p.ParmsID[:]) {
			t.Fatal("a packed ciphertext has another parms_id")
		}
		for k := range primes {
			residues := make([]uint64, p.N)
			for i := range residues {
				residues[i] = values[k*p.N+i].Lo
			}
			c0 = append(c0, residues)
		}
		copy(seed[:], data[32:96])
	default:
		t.Fatalf("a ciphertext of %d bytes", len(data))
	}
	c1 = make([][]uint64, len(primes))
	for k := range c1 {
		c1[k] = make([]uint64, p.N)
	}
	seal.Expand(seed, primes, c1)
	return c0, c1
}

// timesSecret multiplies a polynomial, residues by prime, with the secret key.
func timesSecret(t *testing.T, primes []uint64, polynomial [][]uint64, secret []int8) [][]uint64 {
	t.Helper()
	r, err := ring.NewRing(len(secret), primes)
	if err != nil {
		t.Fatal(err)
	}
	s, product := r.NewPoly(), r.NewPoly()
	for k, prime := range primes {
		copy(product.Coeffs[k], polynomial[k])
		for i, c := range secret {
			s.Coeffs[k][i] = (prime + uint64(int64(c))) % prime
		}
	}
	r.NTT(s, s)
	r.MForm(s, s)
	r.NTT(product, product)
	r.MulCoeffsMontgomery(product, s, product)
	r.INTT(product, product)
	return product.Coeffs
}

// centred is the residue nearest to 0.
func centred(residue, prime uint64) int64 {
	if residue > prime/2 {
		return -int64(prime - residue)
	}
	return int64(residue)
}

// noiseOf computes the noise of a ciphertext of a plaintext, and checks that it is small and the
// same modulo each prime. It returns the digest of the vectors.
func noiseOf(t *testing.T, p *parameters.Parameters, secret []int8, plaintext []uint64, data []byte) string {
	t.Helper()
	primes := p.Primes[:p.DataPrimes]
	c0, c1 := polynomialsOf(t, p, data)
	masked := timesSecret(t, primes, c1, secret)
	q, modulus := parameters.Product(primes), new(big.Int).SetUint64(p.T)
	octets := make([]byte, p.N)
	for i := range octets {
		scaled := new(big.Int).SetUint64(plaintext[i])
		scaled.Mul(scaled, q).Lsh(scaled, 1).Add(scaled, modulus)
		scaled.Div(scaled, new(big.Int).Lsh(modulus, 1))
		for k, prime := range primes {
			m := new(big.Int).Mod(scaled, new(big.Int).SetUint64(prime)).Uint64()
			sum := new(big.Int).SetUint64(c0[k][i])
			sum.Add(sum, new(big.Int).SetUint64(masked[k][i])).Sub(sum, new(big.Int).SetUint64(m))
			e := centred(sum.Mod(sum, new(big.Int).SetUint64(prime)).Uint64(), prime)
			if e < -mostNoise || e > mostNoise {
				t.Fatalf("coefficient %d has noise %d", i, e)
			}
			if k > 0 && byte(e) != octets[i] {
				t.Fatalf("coefficient %d has another noise modulo prime %d", i, k)
			}
			octets[i] = byte(e)
		}
	}
	digest := sha256.Sum256(octets)
	return hex.EncodeToString(digest[:])
}

// publicKeyNoise computes the noise of a public key, as noiseOf does.
func publicKeyNoise(t *testing.T, p *parameters.Parameters, secret []int8, data []byte) string {
	t.Helper()
	var seed [seal.SeedBytes]byte
	copy(seed[:], data[len(data)-seal.SeedBytes:])
	r, err := ring.NewRing(p.N, p.Primes)
	if err != nil {
		t.Fatal(err)
	}
	a := r.NewPoly()
	seal.Expand(seed, p.Primes, a.Coeffs)
	first := coefficientsOf(r, residuesOf(data[113:], p.N, len(p.Primes)))
	second := timesSecret(t, p.Primes, coefficientsOf(r, a.Coeffs), secret)
	octets := make([]byte, p.N)
	for k, prime := range p.Primes {
		for i := range octets {
			e := centred((first[k][i]+second[k][i])%prime, prime)
			if e < -mostNoise || e > mostNoise || (k > 0 && byte(e) != octets[i]) {
				t.Fatalf("coefficient %d has noise %d modulo %d", i, e, prime)
			}
			octets[i] = byte(e)
		}
	}
	digest := sha256.Sum256(octets)
	return hex.EncodeToString(digest[:])
}

// coefficientsOf returns the polynomial that has these values in SEAL's NTT form.
func coefficientsOf(r *ring.Ring, values [][]uint64) [][]uint64 {
	found := r.NewPoly()
	for k := range values {
		places := seal.Order(r.N(), r.SubRings[k].Modulus, r.SubRings[k].PrimitiveRoot)
		for i, place := range places {
			found.Coeffs[k][place] = values[k][i]
		}
	}
	r.INTT(found, found)
	return found.Coeffs
}
