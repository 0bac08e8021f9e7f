package steps

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

// text counts the n-grams of a text that are terms.
type text struct {
	message *pb.Text
	places  map[string]int
	stopped map[string]bool
	outputs int
}

func makeText(message *pb.Text, total *budget) (rule, error) {
	tokens, accents := message.GetTokens(), message.GetStripAccents()
	if tokens == 0 || pb.Text_Tokens_name[int32(tokens)] == "" ||
		accents == 0 || pb.Text_StripAccents_name[int32(accents)] == "" {
		return nil, ErrUnknown
	}
	vocabulary, width := message.GetVocabulary(), message.GetHashWidth()
	if (len(vocabulary) > 0) == (width > 0) || width > maxValues {
		return nil, errors.New("either a vocabulary or the number of hashes is needed")
	}
	if message.GetAlternatesSign() && width == 0 {
		return nil, errors.New("only hashes alternate their sign")
	}
	least, most := message.GetNgramMin(), message.GetNgramMax()
	if least < 1 || least > most || most > maxNgram {
		return nil, fmt.Errorf("n-grams have 1 to %d tokens", maxNgram)
	}
	stopWords := message.GetStopWords()
	if message.GetMinWordLength() > maxCharacters || (len(stopWords) > 0 && tokens != pb.Text_TOKENS_WORDS) {
		return nil, errors.New("the length of words is out of range, or stop words are not for characters")
	}
	if err := checkTexts("a term", vocabulary); err != nil {
		return nil, err
	}
	if err := checkTexts("a stop word", stopWords); err != nil {
		return nil, err
	}
	r := &text{message: message, outputs: len(vocabulary) + int(width)}
	if width == 0 {
		r.places = make(map[string]int, len(vocabulary))
		for place, term := range vocabulary {
			r.places[term] = place
		}
	}
	r.stopped = make(map[string]bool, len(stopWords))
	for _, word := range stopWords {
		r.stopped[word] = true
	}
	return r, total.addTexts(len(vocabulary) + len(stopWords))
}

func (r *text) width() int { return r.outputs }
func (r *text) operations() int {
	sizes := r.message.GetNgramMax() - r.message.GetNgramMin() + 1
	return 1 + r.outputs + operationsASize*int(sizes)
}

func (r *text) apply(inputs, outputs []Value) (isRefused bool) {
	clear(outputs)
	if inputs[0].IsMissing || utf8.RuneCountInString(inputs[0].Text) > maxCharacters {
		return true
	}
	r.ngrams(inputs[0].Text, func(ngram string) {
		if r.places == nil {
			place, amount := hashPlace(ngram, r.message)
			outputs[place].Number += amount
		} else if place, ok := r.places[ngram]; ok {
			outputs[place].Number++
		}
	})
	return false
}

func hashPlace(ngram string, message *pb.Text) (place int, amount float64) {
	h := int64(int32(murmurHash([]byte(ngram))))
	amount = 1
	if h < 0 {
		h = -h
		if message.GetAlternatesSign() {
			amount = -1
		}
	}
	return int(h % int64(message.GetHashWidth())), amount
}

// ngrams calls a function with each n-gram of a text.
func (r *text) ngrams(content string, use func(string)) {
	prepared := r.prepared(content)
	least, most := int(r.message.GetNgramMin()), int(r.message.GetNgramMax())
	switch r.message.GetTokens() {
	case pb.Text_TOKENS_WORDS:
		words := r.words(prepared)
		for size := least; size <= most; size++ {
			for first := range max(0, len(words)-size+1) {
				use(strings.Join(words[first:first+size], " "))
			}
		}
	case pb.Text_TOKENS_CHARACTERS:
		found := []rune(joinedSpaces(prepared))
		for size := least; size <= most; size++ {
			for first := range max(0, len(found)-size+1) {
				use(string(found[first : first+size]))
			}
		}
	default:
		for _, piece := range strings.FieldsFunc(joinedSpaces(prepared), isSpace) {
			padded := []rune(" " + piece + " ")
			for size := least; size <= most; size++ {
				for first := range max(1, len(padded)-size+1) {
					use(string(padded[first:min(first+size, len(padded))]))
				}
				if len(padded) <= size {
					break
				}
			}
		}
	}
}

// words cuts a text into words, without those that are short or left out.
func (r *text) words(content string) []string {
	isWord := wordCharacters()
	var found []string
	for _, word := range strings.FieldsFunc(content, func(c rune) bool { return !isWord.has(c) }) {
		if utf8.RuneCountInString(word) >= int(r.message.GetMinWordLength()) && !r.stopped[word] {
			found = append(found, word)
		}
	}
	return found
}

// joinedSpaces makes one common space of two or more spaces in a row.
func joinedSpaces(content string) string {
	var b strings.Builder
	var run []rune
	end := func() {
		if len(run) == 1 {
			b.WriteRune(run[0])
		} else if len(run) > 1 {
			b.WriteByte(' ')
		}
		run = run[:0]
	}
	for _, c := range content {
		if isSpace(c) {
			run = append(run[:min(len(run), 1)], c)
			continue
		}
		end()
		b.WriteRune(c)
	}
	end()
	return b.String()
}

// prepared converts a text to lower case and removes accents. What Unicode 14.0 does not assign
// stays as it is.
func (r *text) prepared(content string) string {
	var b strings.Builder
	unassigned := unassignedCharacters()
	for len(content) > 0 {
		end := strings.IndexFunc(content, unassigned.has)
		if end < 0 {
			end = len(content)
		}
		b.WriteString(r.preparedPart(content[:end]))
		content = content[end:]
		rest := strings.IndexFunc(content, func(c rune) bool { return !unassigned.has(c) })
		if rest < 0 {
			rest = len(content)
		}
		b.WriteString(content[:rest])
		content = content[rest:]
	}
	if r.message.GetStripAccents() != pb.Text_STRIP_ACCENTS_ASCII {
		return b.String()
	}
	return strings.Map(func(c rune) rune {
		if c >= utf8.RuneSelf {
			return -1
		}
		return c
	}, b.String())
}

func (r *text) preparedPart(part string) string {
	if r.message.GetLowercase() {
		part = cases.Lower(language.Und, cases.HandleFinalSigma(true)).String(part)
	}
	if r.message.GetStripAccents() == pb.Text_STRIP_ACCENTS_NONE {
		return part
	}
	var b strings.Builder
	for _, c := range norm.NFKD.String(part) {
		if norm.NFKD.PropertiesString(string(c)).CCC() == 0 {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// murmurHash is MurmurHash3 of 32 bits with seed 0. Source: Austin Appleby, MurmurHash3.cpp.
func murmurHash(data []byte) uint32 {
	rotated := func(x uint32, bits int) uint32 { return x<<bits | x>>(32-bits) }
	mixed := func(k uint32) uint32 { return rotated(k*0xcc9e2d51, 15) * 0x1b873593 }
	h := uint32(0)
	length := len(data)
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		h = rotated(h^mixed(k), 13)*5 + 0xe6546b64
	}
	if len(data) > 0 {
		k := uint32(0)
		for i, octet := range data {
			k |= uint32(octet) << (8 * i)
		}
		h ^= mixed(k)
	}
	h ^= uint32(length)
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}
