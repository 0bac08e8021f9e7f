package sealserve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"sealserve.example/sealserve"
)

func ExampleDial() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := sealserve.Dial(ctx, "127.0.0.1:50051", sealserve.WithModel("tumors"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	predictions, err := client.Predict(ctx, [][]float64{make([]float64, len(client.Model().Columns))})
	if err != nil {
		log.Fatal(err)
	}
	labels, err := predictions.Labels()
	fmt.Println(labels, err)
}

func ExampleClient_PredictTable() {
	ctx := context.Background()
	client, err := sealserve.Dial(ctx, "inference.example.org:50051", sealserve.WithModel("customers"),
		sealserve.WithToken("TOKEN"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	predictions, err := client.PredictTable(ctx, sealserve.Table{
		Columns: []string{"age", "city", "income"},
		Rows:    [][]any{{42, "Lisbon", 31_000.0}, {nil, "Oslo", 52_500.0}},
	})
	if err != nil {
		log.Fatal(err)
	}
	labels, err := sealserve.Labels[string](predictions)
	if err != nil {
		log.Fatal(err)
	}
	probabilities, err := predictions.Probabilities()
	fmt.Println(labels, predictions.Classes(), probabilities, err)
}

func ExampleClient_Stream() {
	ctx := context.Background()
	client, err := sealserve.Dial(ctx, "127.0.0.1:50051", sealserve.WithModel("tumors"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	stream, err := client.Stream(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	go func() {
		for range 1000 {
			if err := stream.Send(make([]float64, 30)); err != nil {
				return // Recv has the reason
			}
		}
		_ = stream.CloseSend()
	}()
	for {
		result, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			log.Fatal(err) // the stream has ended
		}
		fmt.Println(result.Index, result.Predictions, result.Err) // of one row
	}
}

func ExampleServiceError() {
	client, err := sealserve.Dial(context.Background(), "127.0.0.1:50051", sealserve.WithModel("tumors"))
	var input *sealserve.InputError
	var missing *sealserve.ModelNotFoundError
	var refused sealserve.ServiceError
	switch {
	case err == nil:
		defer client.Close()
	case errors.As(err, &input):
		fmt.Println("row", input.Row, "is refused:", input)
	case errors.As(err, &missing):
		fmt.Println("there is no model", missing.Model)
	case errors.As(err, &refused):
		fmt.Println("the service refused:", refused.Detail())
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Println("no answer came in time")
	}
}
