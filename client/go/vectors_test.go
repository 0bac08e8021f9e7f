package sealserve

// The vectors of tests/vectors: see the README there, which numbers what is checked.

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"sealserve.example/sealserve/internal/cipher"
	"sealserve.example/sealserve/internal/parameters"
)

const vectorsFolder = "../../tests/vectors"

// read has the files that tests have read, by their paths in the folder of the vectors.
var read sync.Map

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectorsFolder, name))
	if err != nil {
		t.Fatal(err)
	}
	read.Store(name, true)
	return data
}

func readJSON[T any](t *testing.T, name string) T {
	t.Helper()
	var content T
	if err := json.Unmarshal(readFile(t, name), &content); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return content
}

// TestMain fails if all tests have run and a file of the vectors was not read.
func TestMain(m *testing.M) {
	code := m.Run()
	var unread []string
	isWhole := !testingPart()
	if code == 0 && isWhole {
		err := filepath.WalkDir(vectorsFolder, func(path string, entry fs.DirEntry, err error) error {
			name, _ := filepath.Rel(vectorsFolder, path)
			switch filepath.Ext(name) {
			case ".json", ".binpb", ".seal", ".bin":
				if _, isRead := read.Load(filepath.ToSlash(name)); !isRead {
					unread = append(unread, name)
				}
			}
			return err
		})
		if err != nil || len(unread) > 0 {
			fmt.Println("FAIL: files of the vectors that no test has read:", unread, err)
			code = 1
		}
	}
	os.Exit(code)
}

// testingPart tells whether flags choose some tests only.
func testingPart() bool {
	for _, argument := range os.Args[1:] {
		for _, flag := range []string{"-test.run", "-test.fuzz", "-test.list", "-test.skip"} {
			if strings.HasPrefix(argument, flag) && !strings.HasSuffix(argument, "=") {
				return true
			}
		}
	}
	return false
}

// message reads a message from protobuf's JSON mapping.
func message[M proto.Message](t *testing.T, content json.RawMessage, to M) M {
	t.Helper()
	if err := protojson.Unmarshal(content, to); err != nil {
		t.Fatal(err)
	}
	return to
}

func parsed[M proto.Message](t *testing.T, name string, to M) M {
	t.Helper()
	if err := proto.Unmarshal(readFile(t, name), to); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return to
}

// delimited reads messages, each behind its length.
func delimited[M proto.Message](t *testing.T, name string, create func() M) []M {
	t.Helper()
	reader := bytes.NewReader(readFile(t, name))
	var found []M
	for reader.Len() > 0 {
		m := create()
		if err := protodelim.UnmarshalFrom(reader, m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		found = append(found, m)
	}
	return found
}

// decimal is an integer that JSON has as a string of digits.
type decimal string

func (d decimal) uint64(t *testing.T) uint64 {
	t.Helper()
	var found uint64
	if _, err := fmt.Sscan(string(d), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func uints(t *testing.T, values []decimal) []uint64 {
	t.Helper()
	found := make([]uint64, len(values))
	for i, value := range values {
		found[i] = value.uint64(t)
	}
	return found
}

// number is a double that JSON may have as a string.
type number float64

func (n *number) UnmarshalJSON(data []byte) error {
	switch string(data) {
	case `"NaN"`:
		*n = number(math.NaN())
	case `"Infinity"`:
		*n = number(math.Inf(1))
	case `"-Infinity"`:
		*n = number(math.Inf(-1))
	default:
		return json.Unmarshal(data, (*float64)(n))
	}
	return nil
}

func floats(values []number) []float64 {
	found := make([]float64, len(values))
	for i, value := range values {
		found[i] = float64(value)
	}
	return found
}

func isClose(found, expected float64) bool {
	if math.IsNaN(expected) {
		return math.IsNaN(found)
	}
	return found == expected || math.Abs(found-expected) <= 1e-12*max(math.Abs(found), math.Abs(expected)) ||
		math.Abs(found-expected) <= 1e-300
}

func checkClose(t *testing.T, what string, found, expected []float64) {
	t.Helper()
	if len(found) != len(expected) {
		t.Fatalf("%s: %d numbers, expected %d", what, len(found), len(expected))
	}
	for i := range found {
		if !isClose(found[i], expected[i]) {
			t.Errorf("%s: number %d is %v, expected %v", what, i, found[i], expected[i])
		}
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func unbase64(t *testing.T, text string) []byte {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// change is a change of the bytes of a file.
type change struct {
	At    int
	Bytes string
	Flip  string
	Times int
}

// changed returns bytes with changes, then cut off or filled up with zeros if there is a length.
func changed(t *testing.T, data []byte, changes []change, length *int) []byte {
	t.Helper()
	found := bytes.Clone(data)
	for _, c := range changes {
		if c.Flip != "" {
			found[c.At] ^= unhex(t, c.Flip)[0]
		} else if c.Bytes != "" {
			written := bytes.Repeat(unhex(t, c.Bytes), max(1, c.Times))
			if need := c.At + len(written); need > len(found) {
				found = append(found, make([]byte, need-len(found))...)
			}
			copy(found[c.At:], written)
		}
	}
	if length != nil {
		found = append(found, make([]byte, max(0, *length-len(found)))...)[:*length]
	}
	return found
}

// ringOf reads the keys of a ring: the secret key for some parameters of it.
type ringOf struct {
	Degree         int       `json:"poly_modulus_degree"`
	Primes         []decimal `json:"coeff_modulus"`
	SecretKey      []string  `json:"secret_key"`
	KeyParmsID     string    `json:"key_parms_id"`
	PublicKeyID    string    `json:"public_key_id"`
	PublicKeyNoise string    `json:"public_key_noise_sha256"`
}

func readRing(t *testing.T, name string) (ringOf, *parameters.Parameters) {
	t.Helper()
	r := readJSON[ringOf](t, "rings/"+name+"/ring.json")
	primes := uints(t, r.Primes)
	return r, &parameters.Parameters{
		Set: name, N: r.Degree, Primes: primes, DataPrimes: max(1, len(primes)-1), T: 2,
	}
}

func (r ringOf) coefficients() []int8 {
	var found []int8
	for _, digit := range strings.Join(r.SecretKey, "") {
		found = append(found, map[rune]int8{'-': -1, '0': 0, '+': 1}[digit])
	}
	return found
}

func (r ringOf) key(t *testing.T, p *parameters.Parameters) *cipher.SecretKey {
	t.Helper()
	key, err := cipher.FromCoefficients(p, r.coefficients())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func folders(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(vectorsFolder, pattern))
	if err != nil || len(found) == 0 {
		t.Fatal("there are no vectors", pattern, err)
	}
	for i, path := range found {
		found[i], _ = filepath.Rel(vectorsFolder, path)
	}
	sort.Strings(found)
	return found
}
