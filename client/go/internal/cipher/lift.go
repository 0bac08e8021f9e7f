package cipher

import (
	"math/big"
	"math/bits"

	"github.com/tuneinsight/lattigo/v6/ring"

	"sealserve.example/sealserve/internal/bitpack"
	"sealserve.example/sealserve/internal/parameters"
)

// Lift takes coefficients modulo 2^b to round(q' c / 2^b), by its residues for the primes whose
// product is q'.
//
// Let h = 2^(b-1) and r = (q' c + h) mod 2^b. Then round(q' c / 2^b) = (q' c + h - r) / 2^b, which
// is (h - r) / 2^b modulo a prime, because q' is 0 there. |h - r| has at most b - 1 bits.
type Lift struct {
	q      bitpack.Uint128 // q' mod 2^128
	half   bitpack.Uint128
	mask   bitpack.Uint128
	primes []liftPrime
}

type liftPrime struct {
	prime    uint64
	constant [2]uint64
	inverse  uint64 // of 2^b
	high     uint64 // 2^64 / 2^b
}

// NewLift prepares lifts of coefficients of 8 to bitpack.MaxBits bits.
func NewLift(primes []uint64, size int) *Lift {
	one := big.NewInt(1)
	power := new(big.Int).Lsh(one, uint(size))
	l := &Lift{
		q:    uint128(parameters.Product(primes)),
		half: uint128(new(big.Int).Rsh(power, 1)),
		mask: uint128(new(big.Int).Sub(power, one)),
	}
	for _, p := range primes {
		modulus := new(big.Int).SetUint64(p)
		inverse := new(big.Int).ModInverse(power, modulus)
		high := new(big.Int).Lsh(inverse, 64)
		l.primes = append(l.primes, liftPrime{
			prime: p, constant: ring.GenBRedConstant(p), inverse: inverse.Uint64(), high: high.Mod(high, modulus).Uint64(),
		})
	}
	return l
}

// Residue is the residue for prime number k.
func (l *Lift) Residue(k int, c bitpack.Uint128) uint64 {
	hi, lo := bits.Mul64(l.q.Lo, c.Lo)
	hi += l.q.Lo*c.Hi + l.q.Hi*c.Lo
	lo, carry := bits.Add64(lo, l.half.Lo, 0)
	hi += l.half.Hi + carry
	lo, hi = lo&l.mask.Lo, hi&l.mask.Hi
	// h - r, as its amount and its sign.
	lo, borrow := bits.Sub64(l.half.Lo, lo, 0)
	hi, borrow = bits.Sub64(l.half.Hi, hi, borrow)
	sign := -borrow // all ones if it is negative
	lo, carry = bits.Add64(lo^sign, borrow, 0)
	hi = (hi ^ sign) + carry
	p := &l.primes[k]
	residue := ring.BRed(lo, p.inverse, p.prime, p.constant) + ring.BRed(hi, p.high, p.prime, p.constant)
	residue = ring.CRed(residue, p.prime)
	return ring.CRed(residue^((residue^(p.prime-residue))&sign), p.prime)
}

func uint128(x *big.Int) bitpack.Uint128 {
	low := new(big.Int).And(x, new(big.Int).SetUint64(^uint64(0)))
	high := new(big.Int).Rsh(x, 64)
	return bitpack.Uint128{Hi: high.And(high, new(big.Int).SetUint64(^uint64(0))).Uint64(), Lo: low.Uint64()}
}
