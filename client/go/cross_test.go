package sealserve

// Files between clients in several languages: tests/integration/test_languages.py lets each of them
// encrypt the items of the vectors, under the vectors' keys, and check what the others have encrypted.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/item"
	pb "sealserve.example/sealserve/internal/sealservev1"
)

func crossFolders(t *testing.T, variable string) []string {
	t.Helper()
	found := os.Getenv(variable)
	if found == "" {
		t.Skip("there are no files: run pytest -m slow tests/integration/test_languages.py")
	}
	return strings.Split(found, ":")
}

// TestCrossEncrypt writes for each item NAME.binpb, a request, and NAME.key, the public key that it
// names.
func TestCrossEncrypt(t *testing.T) {
	to := crossFolders(t, "SEALSERVE_CROSS_TO")[0]
	for _, folder := range folders(t, "items/*") {
		name := filepath.Base(folder)
		v := readItem(t, folder)
		offer := v.codec.Offer
		form := cipher.Full
		if offer.TakesPacked {
			form = cipher.Packed
		} else if !strings.HasSuffix(name, "residues") {
			form = cipher.Seeded
		}
		codec := item.NewCodec(v.codec.Model, offer, v.ring.key(t, offer.Parameters), form)
		cells := checkItemRows(t, v)
		request := &pb.PredictRequest{Header: codec.Header(len(cells))}
		for k := range codec.Ciphertexts() {
			request.Ciphertexts = append(request.Ciphertexts, codec.Encrypt(cells, k))
		}
		writeCross(t, to, name+".binpb", marshaled(t, request))
		if offer.NeedsKey {
			writeCross(t, to, name+".key", codec.PublicKey)
		}
	}
}

// TestCrossCheck checks requests, and decrypts NAME.reply, what a service has answered to each.
func TestCrossCheck(t *testing.T) {
	for _, from := range crossFolders(t, "SEALSERVE_CROSS_FROM") {
		for _, folder := range folders(t, "items/*") {
			name := filepath.Base(folder)
			v := readItem(t, folder)
			p, plaintext := v.codec.Offer.Parameters, make([]uint64, v.codec.Offer.Parameters.N)
			request := crossMessage(t, filepath.Join(from, name+".binpb"), new(pb.PredictRequest))
			request.Header.KeyId = v.header.GetKeyId() // each makes a public key of its own
			if !proto.Equal(request.GetHeader(), v.header) || len(request.GetCiphertexts()) != v.codec.Ciphertexts() {
				t.Errorf("%s: the header of %s", from, name)
			}
			for k, ciphertext := range request.GetCiphertexts() {
				v.codec.Offer.Layout.Plaintext(v.expected.Cells, k, plaintext)
				noiseOf(t, p, v.ring.coefficients(), plaintext, ciphertext)
			}
			reply := crossMessage(t, filepath.Join(from, name+".reply"), new(pb.PredictResponse))
			found, err := v.codec.Read(len(v.expected.Rows), reply.GetScores().GetScores(), nil)
			if err != nil || !found.IsPlausible {
				t.Fatal(from, name, err, found.IsPlausible)
			}
			for r, scores := range found.Scores {
				checkClose(t, from+": the scores of "+name, scores, floats(v.expected.Scores[r]))
			}
		}
	}
}

func marshaled(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeCross(t *testing.T, folder, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func crossMessage[M proto.Message](t *testing.T, path string, m M) M {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
	return m
}
