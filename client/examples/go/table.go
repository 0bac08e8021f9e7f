package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	pb "sealserve.example/stubs/sealserve/inference"
)

// table has the rows of a CSV file with a header.
type table struct {
	names []string
	rows  [][]string
}

func readTable(path string) (*table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	records, err := csv.NewReader(bufio.NewReader(file)).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(records) < 2 {
		return nil, fmt.Errorf("%s: there are no rows", path)
	}
	return &table{records[0], records[1:]}, nil
}

// inputs returns some rows as the tensors that a model takes: one of all columns, or one a column.
func (t *table) inputs(model *pb.ModelMetadataResponse, begin, end int) ([]*pb.ModelInferRequest_InferInputTensor, error) {
	if whole := model.Inputs[0]; len(model.Inputs) == 1 && len(whole.Shape) == 2 {
		var values []string
		for _, row := range t.rows[begin:end] {
			values = append(values, row...)
		}
		input, err := tensor(whole, values, int64(end-begin), int64(len(t.names)))
		return []*pb.ModelInferRequest_InferInputTensor{input}, err
	}
	columns := map[string]int{}
	for place, name := range t.names {
		columns[name] = place
	}
	var inputs []*pb.ModelInferRequest_InferInputTensor
	for _, column := range model.Inputs {
		place, ok := columns[column.Name]
		if !ok {
			return nil, fmt.Errorf("the file has no column %q", column.Name)
		}
		var values []string
		for _, row := range t.rows[begin:end] {
			values = append(values, row[place])
		}
		input, err := tensor(column, values, int64(end-begin))
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, input)
	}
	return inputs, nil
}

func tensor(
	said *pb.ModelMetadataResponse_TensorMetadata, values []string, shape ...int64,
) (*pb.ModelInferRequest_InferInputTensor, error) {
	contents := &pb.InferTensorContents{}
	for _, value := range values {
		if said.Datatype == "BYTES" {
			contents.BytesContents = append(contents.BytesContents, []byte(value))
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", said.Name, err)
		}
		contents.Fp64Contents = append(contents.Fp64Contents, number)
	}
	return &pb.ModelInferRequest_InferInputTensor{
		Name: said.Name, Datatype: said.Datatype, Shape: shape, Contents: contents,
	}, nil
}

// writeAnswer writes the outputs of a reply as CSV, a line for each row.
func writeAnswer(out io.Writer, reply *pb.ModelInferResponse, withHeader bool) {
	var header []string
	var columns [][]string
	var widths []int
	for _, output := range reply.Outputs {
		width := 1
		if len(output.Shape) == 2 {
			width = int(output.Shape[1])
		}
		for place := range width {
			header = append(header, fmt.Sprintf("%s_%d", output.Name, place))
		}
		columns, widths = append(columns, texts(output)), append(widths, width)
	}
	if withHeader {
		fmt.Fprintln(out, strings.Join(header, ","))
	}
	for row := range int(reply.Outputs[0].Shape[0]) {
		var cells []string
		for place, values := range columns {
			cells = append(cells, values[row*widths[place]:(row+1)*widths[place]]...)
		}
		fmt.Fprintln(out, strings.Join(cells, ","))
	}
}

// texts returns the values of an output. Labels are strings, integers or booleans; all else is FP64.
func texts(output *pb.ModelInferResponse_InferOutputTensor) []string {
	var found []string
	for _, value := range output.Contents.BytesContents {
		found = append(found, string(value))
	}
	for _, value := range output.Contents.Int64Contents {
		found = append(found, strconv.FormatInt(value, 10))
	}
	for _, value := range output.Contents.BoolContents {
		found = append(found, strconv.FormatBool(value))
	}
	for _, value := range output.Contents.Fp64Contents {
		found = append(found, strconv.FormatFloat(value, 'g', -1, 64))
	}
	return found
}
