package seal

import (
	"math/bits"

	"github.com/tuneinsight/lattigo/v6/ring"
)

// Order returns for each value of SEAL's NTT form its place in Lattigo's, modulo one prime.
//
// Both have at i the value at psi^(2 r + 1), where r is i with its bits in reverse order. SEAL's psi
// is the least primitive 2N-th root of unity, and Lattigo's another one. With SEAL's = Lattigo's^e,
// SEAL's value at psi^(2 r + 1) is Lattigo's at psi^(e (2 r + 1)).
func Order(n int, prime, primitiveRoot uint64) []int {
	order := uint64(2 * n)
	psi := ring.ModExp(primitiveRoot, (prime-1)/order, prime)
	constant := ring.GenBRedConstant(prime)
	square := ring.BRed(psi, psi, prime, constant)
	least, exponent := psi, uint64(1)
	for e, power := uint64(1), psi; e < order; e, power = e+2, ring.BRed(power, square, prime, constant) {
		if power < least {
			least, exponent = power, e
		}
	}
	shift := 64 - bits.Len(uint(n-1))
	places := make([]int, n)
	for i := range places {
		r := bits.Reverse64(uint64(i)) >> shift
		other := (exponent * (2*r + 1) % order) / 2
		places[i] = int(bits.Reverse64(other) >> shift)
	}
	return places
}
