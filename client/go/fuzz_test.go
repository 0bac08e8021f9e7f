package sealserve

// Whatever a hostile service sends, the client refuses it with an error, and never panics.

import (
	"math"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"encoding/base64"
	"encoding/json"
	"os"

	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/item"
	"sealserve.example/sealserve/internal/messages"
	"sealserve.example/sealserve/internal/model"
	pb "sealserve.example/sealserve/internal/sealservev1"
	"sealserve.example/sealserve/internal/steps"
)

func seedFile(f *testing.F, name string) []byte {
	f.Helper()
	data, err := os.ReadFile(filepath.Join(vectorsFolder, name))
	if err != nil {
		f.Fatal(err)
	}
	return data
}

// seedCases adds a member of each case of a file of the vectors, which has it in base64.
func seedCases(f *testing.F, name, member string) {
	f.Helper()
	var content struct{ Cases []map[string]json.RawMessage }
	if err := json.Unmarshal(seedFile(f, name), &content); err != nil {
		f.Fatal(err)
	}
	for _, c := range content.Cases {
		var text string
		if err := json.Unmarshal(c[member], &text); err != nil {
			f.Fatal(err)
		}
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// codecOf makes a codec for the first offer of an item of the vectors.
func codecOf(f *testing.F, folder string) *item.Codec {
	f.Helper()
	response := new(pb.GetModelResponse)
	if err := protojson.Unmarshal(seedFile(f, folder+"/description.json"), response); err != nil {
		f.Fatal(err)
	}
	m, err := model.FromProto(response.GetModel())
	if err != nil {
		f.Fatal(err)
	}
	key, err := cipher.Generate(m.Offers[0].Parameters)
	if err != nil {
		f.Fatal(err)
	}
	return item.NewCodec(m, m.Offers[0], key, cipher.Seeded)
}

func FuzzReply(f *testing.F) {
	var codecs []*item.Codec
	for _, name := range []string{"row_open", "row_open_residues", "row_private"} {
		f.Add(seedFile(f, "items/"+name+"/reply.binpb"))
		codecs = append(codecs, codecOf(f, "items/"+name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		response := new(pb.PredictResponse)
		if messages.Unmarshal(data, response, maxMessages) != nil {
			return
		}
		for _, codec := range codecs {
			found, err := codec.Read(1, response.GetScores().GetScores(), nil)
			if err != nil || !found.IsPlausible {
				continue
			}
			for k, score := range found.Scores[0] {
				integer := score * codec.Offer.ScoreScale
				off := math.Abs(integer - float64(codec.Offer.ScoreCenters[k]))
				if !(off <= float64(codec.Offer.ScoreRadii[k])*(1+1e-9)+1) {
					t.Fatalf("score %d is out of its range", k)
				}
			}
		}
	})
}

func FuzzDescription(f *testing.F) {
	seedCases(f, "descriptions.json", "model")
	f.Fuzz(func(t *testing.T, data []byte) {
		message := new(pb.Model)
		if messages.Unmarshal(data, message, maxMessages) != nil {
			return
		}
		m, err := model.FromProto(message)
		if err != nil {
			if strings.IndexFunc(err.Error(), func(r rune) bool { return unicode.IsControl(r) }) >= 0 {
				t.Fatalf("the text %q is not safe to show", err)
			}
			return
		}
		row := make([]steps.Value, len(m.Columns))
		features, cells := make([]float64, m.Grid.Features()), make([]uint64, m.Grid.Features())
		if m.StepsID == "" {
			m.Features(row, false, features)
			m.Grid.Quantize(features, false, cells)
			for i, cell := range cells {
				if cell > m.Grid.Levels(i) {
					t.Fatalf("feature %d is beyond its levels", i)
				}
			}
		}
		_ = describedModel(m)
		p := &Predictions{Scores: [][]float64{make([]float64, m.Output.Scores)}, output: m.Output}
		_, _ = p.Labels()
		_, _ = p.Probabilities()
		_, _ = p.DecisionFunction()
	})
}

func FuzzSteps(f *testing.F) {
	seedCases(f, "refused_steps.json", "steps")
	paths, err := filepath.Glob(filepath.Join(vectorsFolder, "steps/*.json"))
	if err != nil || len(paths) == 0 {
		f.Fatal(err)
	}
	for _, path := range paths {
		var content struct{ Steps []byte }
		if data, err := os.ReadFile(path); err != nil || json.Unmarshal(data, &content) != nil {
			f.Fatal(path, err)
		}
		f.Add(content.Steps)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		program, err := steps.Parse(data)
		if err != nil {
			return
		}
		row := make([]steps.Value, program.Columns())
		for i := range row {
			row[i] = steps.Value{Number: float64(i) - 1.5, Text: "Ein Wörtchen, zwei"}
		}
		program.Features(row, make([]float64, program.FeatureCount()))
		for i := range row {
			row[i] = steps.Value{Number: math.NaN(), IsMissing: true}
		}
		program.Features(row, make([]float64, program.FeatureCount()))
	})
}

func FuzzError(f *testing.F) {
	seedCases(f, "errors.json", "grpc_status_details_bin")
	f.Fuzz(func(t *testing.T, data []byte) {
		st := new(spb.Status)
		if proto.Unmarshal(data, st) != nil || st.GetCode() == 0 {
			return
		}
		// The same bytes as the detail itself, too.
		st.Details = append(st.Details, &anypb.Any{TypeUrl: "type.googleapis.com/sealserve.v1.Error", Value: data})
		err := typedError(status.FromProto(st).Err())
		if err == nil {
			t.Fatal("a failed call has no error")
		}
		text := err.Error()
		if strings.IndexFunc(text, unicode.IsControl) >= 0 || len(text) > 1<<13 {
			t.Fatalf("the text %q is not safe to show", text)
		}
	})
}
