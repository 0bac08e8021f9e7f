// Asks an agent for predictions of a CSV file's rows, through stubs of the Open Inference Protocol.
//
//	example [--address unix:agent.sock] [--token-file agent.token] COMMAND MODEL ROWS.csv
//
// The commands batch, rows and stream print CSV: labels, scores and probabilities. The commands
// deadline, cancel and refused fail on purpose, and print the status and the reason. The command
// time prints how long a row and a batch took, in milliseconds.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strconv"
	"time"

	pb "sealserve.example/stubs/sealserve/inference"

	"google.golang.org/grpc/status"
)

const calls = 200 // that the command time times

// caller has what the commands need.
type caller struct {
	agent pb.GRPCInferenceServiceClient
	model *pb.ModelMetadataResponse
	table *table
	out   *bufio.Writer
}

func main() {
	log.SetFlags(0)
	address := flag.String("address", "unix:agent.sock", "the agent's: unix:PATH or 127.0.0.1:PORT")
	tokenFile := flag.String("token-file", "agent.token", "has the agent's token; empty for none")
	flag.Parse()
	if flag.NArg() != 3 {
		log.Fatal("usage: example [OPTIONS] COMMAND MODEL ROWS.csv")
	}
	if err := run(*address, *tokenFile, flag.Arg(0), flag.Arg(1), flag.Arg(2)); err != nil {
		log.Fatalf("%s %s %s", status.Code(err), reason(err), status.Convert(err).Message())
	}
}

func run(address, tokenFile, command, model, path string) error {
	commands := map[string]func(*caller, context.Context) error{
		"batch": (*caller).batch, "rows": (*caller).rows, "stream": (*caller).stream, "time": (*caller).time,
		"deadline": (*caller).deadline, "cancel": (*caller).cancel, "refused": (*caller).refused,
	}
	act, ok := commands[command]
	if !ok {
		return fmt.Errorf("there is no command %q", command)
	}
	table, err := readTable(path)
	if err != nil {
		return err
	}
	connection, err := dial(address, tokenFile)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	agent := pb.NewGRPCInferenceServiceClient(connection)
	metadata, err := agent.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: model})
	if err != nil {
		return err
	}
	c := &caller{agent, metadata, table, bufio.NewWriter(os.Stdout)}
	defer c.out.Flush()
	return act(c, ctx)
}

func (c *caller) infer(ctx context.Context, begin, end int) (*pb.ModelInferResponse, error) {
	inputs, err := c.table.inputs(c.model, begin, end)
	if err != nil {
		return nil, err
	}
	return c.agent.ModelInfer(ctx, request(c.model.Name, "", inputs))
}

// batch asks for all rows in one call.
func (c *caller) batch(ctx context.Context) error {
	reply, err := c.infer(ctx, 0, len(c.table.rows))
	if err != nil {
		return err
	}
	writeAnswer(c.out, reply, true)
	return nil
}

// rows asks for each row in a call of its own.
func (c *caller) rows(ctx context.Context) error {
	for row := range c.table.rows {
		reply, err := c.infer(ctx, row, row+1)
		if err != nil {
			return err
		}
		writeAnswer(c.out, reply, row == 0)
	}
	return nil
}

// stream sends each row as a request of one stream. Replies come in any order, each with its id.
func (c *caller) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that is left alone stays open
	stream, err := c.agent.ModelStreamInfer(ctx)
	if err != nil {
		return err
	}
	go func() {
		defer stream.CloseSend()
		for row := range c.table.rows {
			inputs, err := c.table.inputs(c.model, row, row+1)
			if err != nil || stream.Send(request(c.model.Name, strconv.Itoa(row), inputs)) != nil {
				cancel()
				return // Recv says why
			}
		}
	}()
	replies := make([]*pb.ModelInferResponse, len(c.table.rows))
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if reply.ErrorMessage != "" {
			return fmt.Errorf("row %s: %s", reply.InferResponse.Id, reply.ErrorMessage)
		}
		row, err := strconv.Atoi(reply.InferResponse.Id)
		if err != nil {
			return err
		}
		replies[row] = reply.InferResponse
	}
	for row, reply := range replies {
		writeAnswer(c.out, reply, row == 0)
	}
	return nil
}

// deadline lets a call have too little time.
func (c *caller) deadline(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err := c.infer(ctx, 0, len(c.table.rows))
	return err
}

// cancel ends a call that it has begun.
func (c *caller) cancel(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(2*time.Millisecond, cancel)
	_, err := c.infer(ctx, 0, len(c.table.rows))
	return err
}

// refused asks for an output that no model has.
func (c *caller) refused(ctx context.Context) error {
	inputs, err := c.table.inputs(c.model, 0, 1)
	if err != nil {
		return err
	}
	asked := request(c.model.Name, "", inputs)
	asked.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "logits"}}
	_, err = c.agent.ModelInfer(ctx, asked)
	return err
}

// time times single rows, and all rows at once.
func (c *caller) time(ctx context.Context) error {
	for _, size := range []int{1, len(c.table.rows)} {
		count := max(3, calls/size)
		taken := make([]float64, 0, count)
		for call := range count + 1 {
			begin := time.Now()
			if _, err := c.infer(ctx, 0, size); err != nil {
				return err
			}
			if call > 0 { // the first one connects
				taken = append(taken, time.Since(begin).Seconds()*1e3)
			}
		}
		slices.Sort(taken)
		fmt.Fprintf(c.out, "%d %.3f\n", size, taken[len(taken)/2])
	}
	return nil
}
