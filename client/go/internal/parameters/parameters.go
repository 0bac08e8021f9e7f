// Package parameters holds encryption parameters and the checks that they have to pass.
package parameters

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"math/bits"

	"golang.org/x/crypto/blake2b"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

const (
	maxPrimes           = 64 // SEAL_COEFF_MOD_COUNT_MAX
	maxPrimeBits        = 60 // SEAL_USER_MOD_BIT_COUNT_MAX
	maxPlainModulusBits = 60 // SEAL_PLAIN_MOD_BIT_COUNT_MAX
)

// maxModulusBits has, by degree, the most bits that the product of all primes may have for 128 bits
// of classical security with ternary secrets. Source: SEAL native/src/seal/util/hestdparms.h.
var maxModulusBits = map[uint32]int{1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}

// Parameters are checked encryption parameters of BFV.
type Parameters struct {
	// Set is the name that client and service use for the degree and the primes.
	Set string
	// N is the degree: a polynomial has N coefficients.
	N int
	// Primes are those of keys, in SEAL's order. Ciphertexts have the first DataPrimes of them.
	Primes []uint64
	// DataPrimes is the number of primes of a fresh ciphertext.
	DataPrimes int
	// T is the plaintext modulus.
	T uint64
	// ParmsID is SEAL's digest of the parameters of a fresh ciphertext.
	ParmsID [32]byte
}

// FaultError says which check of encryption parameters failed.
type FaultError struct {
	// Fault is degree, primes, security, data_prime_count, plain_modulus, scale or parms_id.
	Fault string
	text  string
}

func (e *FaultError) Error() string { return e.text }

func fault(name, format string, args ...any) error {
	return &FaultError{Fault: name, text: fmt.Sprintf(format, args...)}
}

// FromProto checks and converts encryption parameters.
//
// Those of CKKS pass the same checks, but nothing in this module encrypts with them.
func FromProto(message *pb.EncryptionParameters) (*Parameters, error) {
	n, primes := message.GetPolyModulusDegree(), message.GetCoeffModulus()
	most, ok := maxModulusBits[n]
	if !ok {
		return nil, fault("degree", "degree %d is not one of SEAL's", n)
	}
	if err := checkPrimes(n, primes); err != nil {
		return nil, err
	}
	if count := Product(primes).BitLen(); count > most {
		return nil, fault("security", "%d bits of modulus at degree %d are below 128 bits of security", count, n)
	}
	dataPrimes := max(1, len(primes)-1)
	if int64(message.GetDataPrimeCount()) != int64(dataPrimes) {
		return nil, fault("data_prime_count", "%d data primes; SEAL makes %d of these primes",
			message.GetDataPrimeCount(), dataPrimes)
	}
	q, t := Product(primes[:dataPrimes]), message.GetPlainModulus()
	if message.GetScheme() == pb.Scheme_SCHEME_CKKS {
		scale := message.GetCiphertextScale()
		below, _ := new(big.Float).SetInt(q).Float64()
		if t != 0 || !(scale >= 1 && scale < below) {
			return nil, fault("scale", "a scale of CKKS is below 1, or not below the modulus")
		}
	} else if t < 2 || bits.Len64(t) > maxPlainModulusBits || new(big.Int).SetUint64(t).Cmp(q) >= 0 ||
		message.GetCiphertextScale() != 1 {
		return nil, fault("plain_modulus", "plaintext modulus %d is not within 2..2^60 and below the modulus", t)
	}
	id := ParmsID(uint64(message.GetScheme()), uint64(n), primes[:dataPrimes], t)
	if string(id[:]) != string(message.GetParmsId()) {
		return nil, fault("parms_id", "parms_id is not that of the published parameters")
	}
	return &Parameters{
		Set: message.GetParameterSet(), N: int(n), Primes: primes, DataPrimes: dataPrimes, T: t, ParmsID: id,
	}, nil
}

func checkPrimes(n uint32, primes []uint64) error {
	if len(primes) < 1 || len(primes) > maxPrimes {
		return fault("primes", "%d primes; 1 to %d are possible", len(primes), maxPrimes)
	}
	seen := make(map[uint64]bool, len(primes))
	for _, p := range primes {
		isPrime := bits.Len64(p) <= maxPrimeBits && p > 1 && p%(2*uint64(n)) == 1 &&
			new(big.Int).SetUint64(p).ProbablyPrime(0) // exact below 2^64
		if seen[p] || !isPrime {
			return fault("primes", "%d repeats, is no prime, is not 1 modulo 2 N or has over %d bits", p, maxPrimeBits)
		}
		seen[p] = true
	}
	return nil
}

// Product is the product of primes.
func Product(primes []uint64) *big.Int {
	q := big.NewInt(1)
	for _, p := range primes {
		q.Mul(q, new(big.Int).SetUint64(p))
	}
	return q
}

// ParmsID is SEAL's digest of encryption parameters.
func ParmsID(scheme, n uint64, primes []uint64, t uint64) [32]byte {
	words := append([]uint64{scheme, n}, primes...)
	data := make([]byte, 0, 8*len(words)+8)
	for _, word := range append(words, t) {
		data = binary.LittleEndian.AppendUint64(data, word)
	}
	return blake2b.Sum256(data)
}

// KeyParmsID is the parms_id of keys of the ring: that of all primes and t = 2.
func (p *Parameters) KeyParmsID() [32]byte {
	return ParmsID(uint64(pb.Scheme_SCHEME_BFV), uint64(p.N), p.Primes, 2)
}

// SharesRing tells whether keys of the other parameters are keys of these.
func (p *Parameters) SharesRing(other *Parameters) bool {
	if p.N != other.N || len(p.Primes) != len(other.Primes) {
		return false
	}
	for i, prime := range p.Primes {
		if prime != other.Primes[i] {
			return false
		}
	}
	return true
}
