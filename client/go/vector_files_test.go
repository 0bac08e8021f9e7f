package sealserve

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tuneinsight/lattigo/v6/ring"

	"sealserve.example/sealserve/internal/bitpack"
	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/grid"
	"sealserve.example/sealserve/internal/layout"
	"sealserve.example/sealserve/internal/model"
	"sealserve.example/sealserve/internal/output"
	"sealserve.example/sealserve/internal/parameters"
	"sealserve.example/sealserve/internal/seal"
	pb "sealserve.example/sealserve/internal/sealservev1"
	"sealserve.example/sealserve/internal/steps"
)

func TestVectorParameters(t *testing.T) {
	content := readJSON[struct {
		Accepted []struct {
			Parameters    json.RawMessage
			LevelParmsIDs []string `json:"level_parms_ids"`
			KeyParmsID    string   `json:"key_parms_id"`
		}
		Refused []struct {
			Name, Fault string
			Parameters  json.RawMessage
		}
	}](t, "parameters.json")
	for i, c := range content.Accepted {
		m := message(t, c.Parameters, new(pb.EncryptionParameters))
		p, err := parameters.FromProto(m)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		for k, expected := range c.LevelParmsIDs {
			id := parameters.ParmsID(uint64(m.GetScheme()), uint64(p.N), p.Primes[:k+1], p.T)
			if hex.EncodeToString(id[:]) != expected {
				t.Errorf("case %d: the parms_id of level %d", i, k)
			}
		}
		if id := p.KeyParmsID(); hex.EncodeToString(id[:]) != c.KeyParmsID {
			t.Errorf("case %d: the parms_id of keys", i)
		}
		if m.GetScheme() == pb.Scheme_SCHEME_BFV {
			if _, err := cipher.Generate(p); err != nil {
				t.Errorf("case %d: %v", i, err)
			}
		}
	}
	for _, c := range content.Refused {
		_, err := parameters.FromProto(message(t, c.Parameters, new(pb.EncryptionParameters)))
		var fault *parameters.FaultError
		if !errors.As(err, &fault) || fault.Fault != c.Fault {
			t.Errorf("%s: %v, expected %s", c.Name, err, c.Fault)
		}
	}
}

func TestVectorRings(t *testing.T) {
	for _, folder := range folders(t, "rings/*") {
		t.Run(folder, func(t *testing.T) {
			content, p := readRing(t, strings.TrimPrefix(folder, "rings/"))
			secret := content.coefficients()
			if id := p.KeyParmsID(); hex.EncodeToString(id[:]) != content.KeyParmsID {
				t.Error("the parms_id of keys")
			}
			public := readFile(t, folder+"/public_key.seal")
			if digest := sha256.Sum256(public); hex.EncodeToString(digest[:]) != content.PublicKeyID {
				t.Error("the id of the public key")
			}
			if publicKeyNoise(t, p, secret, public) != content.PublicKeyNoise {
				t.Error("the noise of the public key")
			}
			checkSecretKeyFile(t, p, secret, readFile(t, folder+"/secret_key.seal"))
			made := content.key(t, p).PublicKey()
			publicKeyNoise(t, p, secret, made)
			if len(made) != len(public) || !bytes.Equal(made[:113], public[:113]) {
				t.Error("a new public key has other headers")
			}
			if end := len(made) - seal.SeedBytes; !bytes.Equal(made[end-17:end], public[end-17:end]) {
				t.Error("a new public key has another header of its seed")
			}
			if bytes.Equal(made[len(made)-seal.SeedBytes:], public[len(public)-seal.SeedBytes:]) {
				t.Error("a new public key has the seed of another")
			}
		})
	}
}

// checkSecretKeyFile checks that SEAL's file has the values of the key, in SEAL's NTT form.
func checkSecretKeyFile(t *testing.T, p *parameters.Parameters, secret []int8, data []byte) {
	t.Helper()
	r, err := ring.NewRing(p.N, p.Primes)
	if err != nil {
		t.Fatal(err)
	}
	values := residuesOf(data[len(data)-8*p.N*len(p.Primes):], p.N, len(p.Primes))
	for k, residues := range coefficientsOf(r, values) {
		for i, residue := range residues {
			if centred(residue, p.Primes[k]) != int64(secret[i]) {
				t.Fatalf("coefficient %d of the secret key modulo prime %d", i, k)
			}
		}
	}
}

func TestVectorSeeds(t *testing.T) {
	content := readJSON[struct {
		Cases []struct {
			Degree int `json:"poly_modulus_degree"`
			Primes []decimal
			Seed   string
			First  [][]decimal `json:"first_values"`
			Digest string      `json:"values_sha256"`
		}
	}](t, "seeds.json")
	for i, c := range content.Cases {
		values := make([][]uint64, len(c.Primes))
		for k := range values {
			values[k] = make([]uint64, c.Degree)
		}
		seal.Expand([seal.SeedBytes]byte(unhex(t, c.Seed)), uints(t, c.Primes), values)
		var data []byte
		for k, row := range values {
			if expected := uints(t, c.First[k]); !reflect.DeepEqual(row[:len(expected)], expected) {
				t.Errorf("case %d: the first values of prime %d", i, k)
			}
			for _, value := range row {
				for shift := 0; shift < 64; shift += 8 {
					data = append(data, byte(value>>shift))
				}
			}
		}
		if digest := sha256.Sum256(data); hex.EncodeToString(digest[:]) != c.Digest {
			t.Errorf("case %d: the values", i)
		}
	}
}

func gridOf(t *testing.T, m *pb.Input) *grid.Grid {
	t.Helper()
	g, err := grid.New(int(m.GetFeatureCount()), m.GetMinimum(), m.GetMaximum(), m.GetStep(), m.GetKeeps(),
		m.GetGroup(), m.GetExactlyOne())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func checkCells(t *testing.T, name string, g *grid.Grid, row []float64, expected []uint64) {
	t.Helper()
	cells := make([]uint64, len(row))
	isRefused := g.Quantize(row, false, cells)
	if isRefused != (expected == nil) || (expected != nil && !reflect.DeepEqual(cells, expected)) {
		t.Errorf("%s: row %v: cells %v, refused: %v; expected %v", name, row, cells, isRefused, expected)
	}
	if fault, _ := g.Refusal(row, false); isRefused != (fault != 0) {
		t.Errorf("%s: row %v: fault %v, refused: %v", name, row, fault, isRefused)
	}
}

func TestVectorGrid(t *testing.T) {
	content := readJSON[struct {
		Cases []struct {
			Name   string
			Input  json.RawMessage
			Levels []uint64
			Rows   [][]number
			Cells  [][]uint64
		}
	}](t, "grid.json")
	for _, c := range content.Cases {
		g := gridOf(t, message(t, c.Input, new(pb.Input)))
		for i, expected := range c.Levels {
			if g.Levels(i) != expected {
				t.Errorf("%s: the levels of feature %d", c.Name, i)
			}
		}
		for r, row := range c.Rows {
			checkCells(t, c.Name, g, floats(row), c.Cells[r])
		}
	}
}

func TestVectorSteps(t *testing.T) {
	for _, path := range folders(t, "steps/*.json") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			content := readJSON[struct {
				Steps    string
				Columns  []string
				Rows     [][]json.RawMessage
				Refused  []bool
				Features [][]number
				Grid     struct{ Minimum, Maximum, Step float64 }
				Cells    [][]uint64
			}](t, path)
			program, err := steps.Parse(unbase64(t, content.Steps))
			if err != nil {
				t.Fatal(err)
			}
			count := uint32(program.FeatureCount())
			g := gridOf(t, &pb.Input{
				FeatureCount: count, Minimum: []float64{content.Grid.Minimum},
				Maximum: []float64{content.Grid.Maximum}, Step: []float64{content.Grid.Step},
			})
			for r, cells := range content.Rows {
				row := make([]steps.Value, len(cells))
				for i, cell := range cells {
					row[i] = stepValue(t, cell, content.Columns[i] == "text")
				}
				features := make([]float64, program.FeatureCount())
				if isRefused := program.Features(row, features); isRefused != content.Refused[r] {
					t.Errorf("row %d: refused: %v", r, isRefused)
				}
				if !content.Refused[r] {
					checkClose(t, fmt.Sprintf("row %d", r), features, floats(content.Features[r]))
				}
				checkCells(t, "row", g, features, content.Cells[r])
			}
		})
	}
}

func stepValue(t *testing.T, cell json.RawMessage, isText bool) steps.Value {
	t.Helper()
	if isText {
		var text *string
		if err := json.Unmarshal(cell, &text); err != nil {
			t.Fatal(err)
		}
		if text == nil {
			return steps.Value{IsMissing: true}
		}
		return steps.Value{Text: *text}
	}
	switch string(cell) {
	case "true":
		return steps.Value{Number: 1}
	case "false":
		return steps.Value{}
	case "null":
		return steps.Value{Number: math.NaN()}
	}
	var n number
	if err := json.Unmarshal(cell, &n); err != nil {
		t.Fatal(err)
	}
	return steps.Value{Number: float64(n)}
}

func TestVectorRefusedSteps(t *testing.T) {
	content := readJSON[struct {
		Cases []struct{ Name, Fault, Steps string }
	}](t, "refused_steps.json")
	for _, c := range content.Cases {
		_, err := steps.Parse(unbase64(t, c.Steps))
		if err == nil || errors.Is(err, steps.ErrUnknown) != (c.Fault == "unknown") {
			t.Errorf("%s: %v, expected %s", c.Name, err, c.Fault)
		}
	}
}

func TestVectorPacking(t *testing.T) {
	content := readJSON[struct {
		Layouts []struct {
			Layout      string
			Degree      int `json:"poly_modulus_degree"`
			Features    int `json:"feature_count"`
			Scores      int `json:"score_count"`
			Classes     int `json:"classes_per_polynomial"`
			Rows        int `json:"row_count"`
			RowsPerItem int `json:"rows_per_item"`
			Plaintexts  [][][3]uint64
			Places      [][]int `json:"score_places"`
		}
		Bits []struct {
			Bits   int
			Values []decimal
			Packed string
		}
		Lifts []struct {
			Bits     int
			Primes   []decimal
			Values   []string
			Residues [][]decimal
		}
	}](t, "packing.json")
	for i, c := range content.Layouts {
		kind := layout.Row
		if c.Layout == "LAYOUT_COLUMN" {
			kind = layout.Column
		}
		l, err := layout.New(kind, c.Degree, c.Features, c.Scores, c.Classes)
		if err != nil {
			t.Fatal(err)
		}
		rows := make([][]uint64, c.Rows)
		for r := range rows {
			for j := range c.Features {
				rows[r] = append(rows[r], uint64(1+r*c.Features+j))
			}
		}
		if l.Ciphertexts() != len(c.Plaintexts) || l.Pairs() != len(c.Places) || l.Rows() != c.RowsPerItem {
			t.Fatalf("layout %d: %d ciphertexts, %d pairs, %d rows", i, l.Ciphertexts(), l.Pairs(), l.Rows())
		}
		plaintext := make([]uint64, c.Degree)
		for k, runs := range c.Plaintexts {
			expected := make([]uint64, c.Degree)
			for _, run := range runs {
				for n := range run[2] {
					expected[run[0]+n] = run[1] + n
				}
			}
			if l.Plaintext(rows, k, plaintext); !reflect.DeepEqual(plaintext, expected) {
				t.Errorf("layout %d: plaintext %d", i, k)
			}
		}
		for pair, places := range c.Places {
			if found := l.Places(pair, c.Rows); !reflect.DeepEqual(found, places) {
				t.Errorf("layout %d: places of pair %d: %v", i, pair, found)
			}
		}
	}
	for _, c := range content.Bits {
		checkBits(t, c.Bits, c.Values, unhex(t, c.Packed))
	}
	for i, c := range content.Lifts {
		primes := uints(t, c.Primes)
		lift := cipher.NewLift(primes, c.Bits)
		for v, value := range c.Values {
			for k := range primes {
				if found := lift.Residue(k, uint128(t, value)); found != c.Residues[k][v].uint64(t) {
					t.Errorf("lift %d: value %s modulo %d is %d", i, value, primes[k], found)
				}
			}
		}
	}
}

func checkBits(t *testing.T, size int, values []decimal, packed []byte) {
	t.Helper()
	found, err := bitpack.Unpack(packed, size, len(values))
	if err != nil {
		t.Fatal(err)
	}
	for i, value := range values {
		if found[i] != uint128(t, string(value)) {
			t.Errorf("%d bits: value %d is %v, expected %s", size, i, found[i], value)
		}
	}
	if size <= 64 {
		if made := bitpack.Pack(nil, uints(t, values), size); !bytes.Equal(made, packed) {
			t.Errorf("%d bits: packed as %x", size, made)
		}
	}
}

func TestVectorCiphertexts(t *testing.T) {
	for _, name := range []string{"ciphertexts.json", "packed_ciphertexts.json"} {
		t.Run(name, func(t *testing.T) { checkCiphertexts(t, name) })
	}
}

func checkCiphertexts(t *testing.T, name string) {
	t.Helper()
	content := readJSON[struct {
		Ring       string
		Parameters json.RawMessage
		Good       []struct {
			File, Form string
			Changes    []change
			Length     *int
			Noise      string `json:"noise_sha256"`
		}
		Malformed []struct {
			Name, File, Reason string
			Changes            []change
			Length             *int
		}
	}](t, name)
	r, _ := readRing(t, content.Ring)
	p, err := parameters.FromProto(message(t, content.Parameters, new(pb.EncryptionParameters)))
	if err != nil {
		t.Fatal(err)
	}
	plaintext := make([]uint64, p.N)
	for i := range plaintext {
		n := uint64(i)
		plaintext[i] = n * n % p.T * n % p.T
	}
	forms := map[string]cipher.Form{"full": cipher.Full, "seeded": cipher.Seeded, "packed": cipher.Packed}
	for i, c := range content.Good {
		data := changed(t, readFile(t, c.File), c.Changes, c.Length)
		if form, ok := forms[c.Form]; !ok || cipher.NewEncryptor(p, r.key(t, p), form).CiphertextBytes() != len(data) {
			t.Errorf("case %d: a ciphertext of the form %s has another length", i, c.Form)
		}
		if found := noiseOf(t, p, r.coefficients(), plaintext, data); found != c.Noise {
			t.Errorf("case %d: the noise is another", i)
		}
	}
	for _, form := range []cipher.Form{cipher.Full, cipher.Seeded, cipher.Packed} {
		encryptor := cipher.NewEncryptor(p, r.key(t, p), form)
		made := encryptor.Encrypt(plaintext)
		noiseOf(t, p, r.coefficients(), plaintext, made)
		if len(made) != encryptor.CiphertextBytes() {
			t.Errorf("form %d: %d bytes", form, len(made))
		}
	}
	// What a service answers to malformed ones: a client reads the reason.
	for _, c := range content.Malformed {
		changed(t, readFile(t, c.File), c.Changes, c.Length)
		reason := pb.MalformedCiphertext_Reason(pb.MalformedCiphertext_Reason_value[c.Reason])
		err := errorFromProto(&pb.Error{Detail: &pb.Error_MalformedCiphertext{
			MalformedCiphertext: &pb.MalformedCiphertext{Reason: reason},
		}})
		var malformed *MalformedCiphertextError
		if reason == 0 || !errors.As(err, &malformed) || malformed.Reason != c.Reason {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

func TestVectorPublicKeys(t *testing.T) {
	content := readJSON[struct {
		Ring      string
		Malformed []struct{ Name, Reason string }
	}](t, "public_keys.json")
	for _, c := range content.Malformed {
		reason := pb.MalformedKey_Reason(pb.MalformedKey_Reason_value[c.Reason])
		err := errorFromProto(&pb.Error{Detail: &pb.Error_MalformedKey{MalformedKey: &pb.MalformedKey{Reason: reason}}})
		var malformed *MalformedKeyError
		if reason == 0 || !errors.As(err, &malformed) || malformed.Reason != c.Reason {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

func TestVectorDescriptions(t *testing.T) {
	content := readJSON[struct {
		Cases []struct {
			Name, Fault, Model string
			Offers             []string
		}
	}](t, "descriptions.json")
	for _, c := range content.Cases {
		m := new(pb.Model)
		if err := proto.Unmarshal(unbase64(t, c.Model), m); err != nil {
			t.Fatal(err)
		}
		converted, err := model.FromProto(m)
		if found := descriptionFault(m, err); found != c.Fault {
			t.Errorf("%s: %q (%v), expected %q", c.Name, found, err, c.Fault)
			continue
		}
		if c.Fault == "" && !reflect.DeepEqual(converted.Sets, c.Offers) {
			t.Errorf("%s: offers %v", c.Name, converted.Sets)
		}
	}
}

func descriptionFault(m *pb.Model, err error) string {
	var ofParameters *parameters.FaultError
	var ofScores *model.ScoresError
	var ofPacking *model.PackingError
	_, isUnknown := model.UnknownRequirement(m)
	switch {
	case isUnknown:
		return "requires"
	case err == nil:
		return ""
	case errors.As(err, &ofParameters):
		return ofParameters.Fault
	case errors.Is(err, model.ErrReplyBits):
		return "reply_bits"
	case errors.As(err, &ofScores):
		return ofScores.Field
	case errors.As(err, &ofPacking):
		return "packing"
	case strings.Contains(err.Error(), "its output"):
		return "output"
	}
	return "another"
}

func TestVectorOutputs(t *testing.T) {
	content := readJSON[struct {
		Cases []struct {
			Name             string
			Output           json.RawMessage
			Scores           [][]number
			Predictions      []json.RawMessage
			DecisionFunction [][]number `json:"decision_function"`
			Probabilities    [][]number
		}
	}](t, "outputs.json")
	for _, c := range content.Cases {
		o, err := output.FromProto(message(t, c.Output, new(pb.Output)))
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		scores := make([][]float64, len(c.Scores))
		for r, row := range c.Scores {
			scores[r] = floats(row)
		}
		p := &Predictions{Scores: scores, output: o}
		checkPredictions(t, c.Name, p, c.Predictions)
		if c.DecisionFunction != nil {
			for r, row := range c.DecisionFunction {
				checkClose(t, c.Name, o.DecisionFunction(scores[r]), floats(row))
			}
		}
		if o.HasProbabilities() != (c.Probabilities != nil) {
			t.Errorf("%s: has probabilities: %v", c.Name, o.HasProbabilities())
		}
		for r, row := range c.Probabilities {
			checkClose(t, fmt.Sprintf("%s, row %d", c.Name, r), o.Probabilities(scores[r]), floats(row))
		}
	}
}

// checkPredictions compares what a user gets with the predictions of the vectors.
func checkPredictions(t *testing.T, name string, p *Predictions, expected []json.RawMessage) {
	t.Helper()
	for r, raw := range expected {
		switch p.output.Task {
		case output.Regression:
			targets, err := p.Targets()
			if err != nil {
				t.Fatal(err)
			}
			numbers := make([]number, 1)
			if raw[0] == '[' {
				err = json.Unmarshal(raw, &numbers)
			} else {
				err = json.Unmarshal(raw, &numbers[0])
			}
			if err != nil || (raw[0] == '[') == p.output.ScalarTarget {
				t.Fatalf("%s: %s, %v", name, raw, err)
			}
			checkClose(t, name, targets[r], floats(numbers))
		case output.Multilabel:
			indicators, err := p.Indicators()
			var values []int
			if err := errors.Join(err, json.Unmarshal(raw, &values)); err != nil {
				t.Fatal(err)
			}
			for k, value := range values {
				if indicators[r][k] != (value == 1) {
					t.Errorf("%s: row %d: indicators %v", name, r, indicators[r])
				}
			}
		default:
			labels, err := p.Labels()
			if err != nil {
				t.Fatal(err)
			}
			if found, err := json.Marshal(labels[r]); err != nil || !sameLabel(found, raw) {
				t.Errorf("%s: row %d: label %s, expected %s", name, r, found, raw)
			}
		}
	}
}

func sameLabel(found, expected []byte) bool {
	var a, b any
	if json.Unmarshal(found, &a) != nil || json.Unmarshal(expected, &b) != nil {
		return false
	}
	return a == b
}

func TestVectorErrors(t *testing.T) {
	content := readJSON[struct {
		Cases []struct {
			Detail  *string
			Status  int    `json:"grpc_status"`
			Message string `json:"grpc_message"`
			Error   json.RawMessage
			Trailer string `json:"grpc_status_details_bin"`
		}
	}](t, "errors.json")
	for i, c := range content.Cases {
		st := new(spb.Status)
		if err := proto.Unmarshal(unbase64(t, c.Trailer), st); err != nil {
			t.Fatal(err)
		}
		if int(st.GetCode()) != c.Status || st.GetMessage() != c.Message {
			t.Errorf("case %d: the status", i)
		}
		err := typedError(status.FromProto(st).Err())
		if text := err.Error(); strings.ContainsAny(text, "\n\r\x1b") || len(text) > 4096 {
			t.Errorf("case %d: the text %q is not safe to show", i, text)
		}
		var refused ServiceError
		isRefused := errors.As(err, &refused)
		if c.Detail == nil {
			if isRefused && codeName(status.FromProto(st).Code()) != "UNAUTHENTICATED" {
				t.Errorf("case %d: %v has a detail", i, err)
			}
			continue
		}
		if !isRefused || refused.Detail() != *c.Detail {
			t.Errorf("case %d: %v is not %s", i, err, *c.Detail)
			continue
		}
		expected := errorFromProto(message(t, c.Error, new(pb.Error)))
		if !reflect.DeepEqual(err, expected) {
			t.Errorf("case %d: %#v, expected %#v", i, err, expected)
		}
	}
}
