package sealserve

import (
	"encoding/json"
	"errors"
	"math/big"
	"math/bits"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sealserve.example/sealserve/internal/bitpack"
	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/item"
	"sealserve.example/sealserve/internal/model"
	"sealserve.example/sealserve/internal/parameters"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

// vectorItem is one of the items, with the codec for its keys.
type vectorItem struct {
	codec       *item.Codec
	ring        ringOf
	header      *pb.ItemHeader
	ciphertexts [][]byte
	pairs       []*pb.EncryptedScores
	expected    expectedItem
}

type expectedItem struct {
	Ring          string
	Rows          [][]number
	Cells         [][]uint64
	Noise         []string `json:"noise_sha256"`
	Phases        [][]string
	Integers      [][]string
	Scores        [][]number
	Predictions   []json.RawMessage
	Probabilities [][]number
}

func readItem(t *testing.T, folder string) vectorItem {
	t.Helper()
	v := vectorItem{expected: readJSON[expectedItem](t, folder+"/expected.json")}
	described := parsed(t, folder+"/description.binpb", new(pb.GetModelResponse))
	if !proto.Equal(described, message(t, readFile(t, folder+"/description.json"), new(pb.GetModelResponse))) {
		t.Error("the two descriptions differ")
	}
	m, err := model.FromProto(described.GetModel())
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(filepath.Base(folder), "row") {
		request := parsed(t, folder+"/request.binpb", new(pb.PredictRequest))
		v.header, v.ciphertexts = request.GetHeader(), request.GetCiphertexts()
		v.pairs = parsed(t, folder+"/reply.binpb", new(pb.PredictResponse)).GetScores().GetScores()
	} else {
		newRequest := func() *pb.StreamPredictRequest { return new(pb.StreamPredictRequest) }
		for _, request := range delimited(t, folder+"/requests.binpb", newRequest) {
			if request.GetHeader() != nil {
				v.header = request.GetHeader()
			}
			v.ciphertexts = append(v.ciphertexts, request.GetChunk().GetCiphertexts()...)
		}
		newReply := func() *pb.StreamPredictResponse { return new(pb.StreamPredictResponse) }
		for _, reply := range delimited(t, folder+"/replies.binpb", newReply) {
			v.pairs = append(v.pairs, reply.GetScores().GetScores()...)
		}
	}
	v.ring, _ = readRing(t, v.expected.Ring)
	for _, offer := range m.Offers {
		if offer.Parameters.Set == v.header.GetParameterSet() {
			v.codec = item.NewCodec(m, offer, v.ring.key(t, offer.Parameters), cipher.Seeded)
			if offer.NeedsKey { // the items are for the public key of the vectors
				v.codec.KeyID = v.ring.PublicKeyID
			}
		}
	}
	if v.codec == nil {
		t.Fatal("the offer of the request is not left")
	}
	return v
}

func TestVectorItems(t *testing.T) {
	for _, folder := range folders(t, "items/*") {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			v := readItem(t, folder)
			cells := checkItemRows(t, v)
			checkItemCiphertexts(t, v, cells)
			checkPhases(t, v)
			found, err := v.codec.Read(len(cells), v.pairs, nil)
			if err != nil || !found.IsPlausible {
				t.Fatal(err, found.IsPlausible)
			}
			for r, scores := range found.Scores {
				for k, score := range scores {
					if integer := score * v.codec.Offer.ScoreScale; !isClose(integer, exactly(t, v.expected.Integers[r][k])) {
						t.Errorf("row %d: integer %v, expected %s", r, integer, v.expected.Integers[r][k])
					}
				}
				checkClose(t, "scores", scores, floats(v.expected.Scores[r]))
			}
			p := &Predictions{Scores: found.Scores, output: v.codec.Model.Output}
			checkPredictions(t, folder, p, v.expected.Predictions)
			if p.output.HasProbabilities() != (v.expected.Probabilities != nil) {
				t.Error("probabilities")
			}
			for r, row := range v.expected.Probabilities {
				checkClose(t, "probabilities", p.output.Probabilities(found.Scores[r]), floats(row))
			}
		})
	}
}

func exactly(t *testing.T, text string) float64 {
	t.Helper()
	n, ok := new(big.Float).SetString(text)
	if !ok {
		t.Fatal(text)
	}
	f, _ := n.Float64()
	return f
}

func checkItemRows(t *testing.T, v vectorItem) [][]uint64 {
	t.Helper()
	cells := make([][]uint64, len(v.expected.Rows))
	for r, row := range v.expected.Rows {
		cells[r] = make([]uint64, len(row))
		if v.codec.Model.Grid.Quantize(floats(row), false, cells[r]) || !reflect.DeepEqual(cells[r], v.expected.Cells[r]) {
			t.Errorf("row %d: cells %v", r, cells[r])
		}
	}
	if header := v.codec.Header(len(cells)); !proto.Equal(header, v.header) {
		t.Errorf("the header is %v, expected %v", header, v.header)
	}
	return cells
}

// checkItemCiphertexts checks the noise of the given ciphertexts, and of ours in each form.
func checkItemCiphertexts(t *testing.T, v vectorItem, cells [][]uint64) {
	t.Helper()
	p, secret := v.codec.Offer.Parameters, v.ring.coefficients()
	plaintext := make([]uint64, p.N)
	key := v.ring.key(t, p)
	for k, data := range v.ciphertexts {
		v.codec.Offer.Layout.Plaintext(cells, k, plaintext)
		if noiseOf(t, p, secret, plaintext, data) != v.expected.Noise[k] {
			t.Errorf("ciphertext %d has another noise", k)
		}
		for _, form := range []cipher.Form{cipher.Full, cipher.Seeded, cipher.Packed} {
			made := item.NewCodec(v.codec.Model, v.codec.Offer, key, form).Encrypt(cells, k)
			noiseOf(t, p, secret, plaintext, made)
			if expected := lengthOf(p, form, v.codec.Offer.TakesPacked); len(made) != expected {
				t.Errorf("a ciphertext of form %d has %d bytes, expected %d", form, len(made), expected)
			}
		}
	}
	if len(v.ciphertexts) != v.codec.Ciphertexts() {
		t.Error("the number of ciphertexts")
	}
}

// lengthOf is the length of a ciphertext of a form; see polynomialsOf. Where packed ones are not
// taken, seeded ones are made.
func lengthOf(p *parameters.Parameters, form cipher.Form, takesPacked bool) int {
	size := 0
	for _, prime := range p.Primes[:p.DataPrimes] {
		size = max(size, bits.Len64(prime))
	}
	words := p.N * p.DataPrimes
	switch {
	case form == cipher.Full:
		return 113 + 16*words
	case form == cipher.Packed && takesPacked:
		return 96 + words*size/8
	}
	return 113 + 8*words + 81
}

// checkPhases computes (c0 + c1 s) at the places of scores, with big integers.
func checkPhases(t *testing.T, v vectorItem) {
	t.Helper()
	p, bits := v.codec.Offer.Parameters, v.codec.Offer.Bits
	rows := len(v.expected.Rows)
	for number, pair := range v.pairs {
		places := v.codec.Offer.Layout.Places(number, rows)
		var c0, c1 []*big.Int
		q := parameters.Product(p.Primes[:p.DataPrimes])
		if bits != nil {
			c0 = unpackedIntegers(t, pair.GetPacked().GetC0(), bits.C0, len(places), bits.C1-bits.C0)
			c1 = unpackedIntegers(t, pair.GetPacked().GetC1(), bits.C1, p.N, 0)
			q = new(big.Int).Lsh(big.NewInt(1), uint(bits.C1))
		} else {
			c0 = composed(residuesOf(pair.GetResidues().GetC0(), len(places), p.DataPrimes), p.Primes[:p.DataPrimes])
			c1 = composed(residuesOf(pair.GetResidues().GetC1(), p.N, p.DataPrimes), p.Primes[:p.DataPrimes])
		}
		secret := v.ring.coefficients()
		for i, place := range places {
			phase := new(big.Int).Set(c0[i])
			for j, s := range secret { // c1 has the coefficient place - j, or minus that plus N
				at, sign := place-j, int64(s)
				if at < 0 {
					at, sign = at+p.N, -sign
				}
				if sign != 0 {
					phase.Add(phase, new(big.Int).Mul(c1[at], big.NewInt(sign)))
				}
			}
			if phase.Mod(phase, q).String() != v.expected.Phases[number][i] {
				t.Fatalf("phase %d of pair %d is %v", i, number, phase)
			}
		}
	}
}

func unpackedIntegers(t *testing.T, data []byte, size, count, shift int) []*big.Int {
	t.Helper()
	values, err := bitpack.Unpack(data, size, count)
	if err != nil {
		t.Fatal(err)
	}
	found := make([]*big.Int, count)
	for i, value := range values {
		found[i] = new(big.Int).Lsh(new(big.Int).SetUint64(value.Hi), 64)
		found[i].Add(found[i], new(big.Int).SetUint64(value.Lo)).Lsh(found[i], uint(shift))
	}
	return found
}

func composed(residues [][]uint64, primes []uint64) []*big.Int {
	q := parameters.Product(primes)
	found := make([]*big.Int, len(residues[0]))
	for i := range found {
		found[i] = new(big.Int)
		for k, prime := range primes {
			p := new(big.Int).SetUint64(prime)
			others := new(big.Int).Div(q, p)
			unit := new(big.Int).Mul(others, new(big.Int).ModInverse(others, p))
			found[i].Add(found[i], unit.Mul(unit, new(big.Int).SetUint64(residues[k][i])))
		}
		found[i].Mod(found[i], q)
	}
	return found
}

func uint128(t *testing.T, text string) bitpack.Uint128 {
	t.Helper()
	n, ok := new(big.Int).SetString(text, 10)
	if !ok {
		t.Fatal(text)
	}
	low := new(big.Int).And(n, new(big.Int).SetUint64(^uint64(0)))
	return bitpack.Uint128{Hi: new(big.Int).Rsh(n, 64).Uint64(), Lo: low.Uint64()}
}

func TestVectorReplies(t *testing.T) {
	content := readJSON[struct {
		Refused []struct {
			Name, Item, Fault string
			Pairs             []int
			Changes           []replyChange
		}
	}](t, "replies.json")
	faults := map[string]error{
		"count": item.ErrCount, "form": item.ErrForm, "length": cipher.ErrLength, "residue": cipher.ErrResidue,
		"rest": bitpack.ErrRest, "range": nil,
	}
	for _, c := range content.Refused {
		v := readItem(t, "items/"+c.Item)
		pairs := make([]*pb.EncryptedScores, len(c.Pairs))
		for i, index := range c.Pairs {
			pairs[i] = v.pairs[index]
		}
		for _, change := range c.Changes {
			pairs[change.Pair] = changedPair(t, pairs[change.Pair], change)
		}
		expected, isKnown := faults[c.Fault]
		found, err := v.codec.Read(len(v.expected.Rows), pairs, nil)
		if errors.Is(err, bitpack.ErrLength) {
			err = cipher.ErrLength
		}
		if !isKnown || !errors.Is(err, expected) || (c.Fault == "range") != (err == nil && !found.IsPlausible) {
			t.Errorf("%s: %v, plausible: %v; expected %s", c.Name, err, found.IsPlausible, c.Fault)
		}
	}
}

type replyChange struct {
	Pair        int
	Field, Form string
	Changes     []change
	Length      *int
}

func changedPair(t *testing.T, pair *pb.EncryptedScores, c replyChange) *pb.EncryptedScores {
	t.Helper()
	c0, c1 := pair.GetPacked().GetC0(), pair.GetPacked().GetC1()
	form := "packed"
	if pair.GetResidues() != nil {
		c0, c1, form = pair.GetResidues().GetC0(), pair.GetResidues().GetC1(), "residues"
	}
	switch c.Field {
	case "c0":
		c0 = changed(t, c0, c.Changes, c.Length)
	case "c1":
		c1 = changed(t, c1, c.Changes, c.Length)
	}
	if c.Form != "" {
		form = c.Form
	}
	switch form {
	case "packed":
		return &pb.EncryptedScores{Form: &pb.EncryptedScores_Packed{Packed: &pb.PackedPair{C0: c0, C1: c1}}}
	case "residues":
		return &pb.EncryptedScores{Form: &pb.EncryptedScores_Residues{Residues: &pb.Residues{C0: c0, C1: c1}}}
	}
	t.Fatal(form)
	return nil
}
