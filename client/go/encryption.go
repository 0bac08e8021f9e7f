package sealserve

import (
	"runtime"
	"sync"

	"sealserve.example/sealserve/internal/item"
)

// encryptAll encrypts the ciphertexts first..last-1 of an item, on all processors.
func encryptAll(codec *item.Codec, cells [][]uint64, first, last int) [][]byte {
	found := make([][]byte, last-first)
	workers := min(runtime.GOMAXPROCS(0), len(found))
	if workers == 1 {
		for i := range found {
			found[i] = codec.Encrypt(cells, first+i)
		}
		return found
	}
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := worker; i < len(found); i += workers {
				found[i] = codec.Encrypt(cells, first+i)
			}
		})
	}
	group.Wait()
	return found
}
