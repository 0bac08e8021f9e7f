// Times asks a service for predictions of random rows, and prints how many seconds a whole call takes.
// benchmarks/clients.py runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"time"

	"sealserve.example/sealserve"
)

func main() {
	target := flag.String("target", "", "the address of the service")
	rows := flag.Int("rows", 1, "the rows of a call")
	calls := flag.Int("calls", 50, "the calls")
	flag.Parse()
	if err := run(*target, *rows, *calls); err != nil {
		log.Fatal(err)
	}
}

func run(target string, rows, calls int) error {
	ctx := context.Background()
	client, err := sealserve.Dial(ctx, target)
	if err != nil {
		return err
	}
	defer client.Close()
	table := make([][]float64, rows)
	for r := range table {
		table[r] = make([]float64, len(client.Model().Columns))
		for i := range table[r] {
			table[r][i] = float64(rand.IntN(256)) / 255
		}
	}
	for call := range calls + 1 {
		begin := time.Now()
		if _, err := client.Predict(ctx, table); err != nil {
			return err
		}
		if call > 0 { // the first one registers a key
			fmt.Println(time.Since(begin).Seconds())
		}
	}
	return nil
}
