package steps

import (
	_ "embed" // the tables
	"sort"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// The characters of Unicode 14.0, as ranges of hexadecimal numbers. They are those of the Python
// SDK, steps/unicode_tables.py, which a test of the SDK compares with them.
var (
	//go:embed words.txt
	wordRanges string
	//go:embed unassigned.txt
	unassignedRanges string
)

// characters is a set of characters: ranges in ascending order.
type characters []struct{ first, last rune }

func (c characters) has(r rune) bool {
	at := sort.Search(len(c), func(i int) bool { return c[i].last >= r })
	return at < len(c) && c[at].first <= r
}

// parsed parses ranges on their first use.
func parsed(text *string) func() characters {
	return sync.OnceValue(func() characters {
		var found characters
		for _, part := range strings.Fields(*text) {
			first, last, isRange := strings.Cut(part, "-")
			if !isRange {
				last = first
			}
			found = append(found, struct{ first, last rune }{hexadecimal(first), hexadecimal(last)})
		}
		return found
	})
}

func hexadecimal(text string) rune {
	number, err := strconv.ParseInt(text, 16, 32)
	if err != nil {
		panic(err) // the tables are part of the program
	}
	return rune(number)
}

var (
	wordCharacters       = parsed(&wordRanges)
	unassignedCharacters = parsed(&unassignedRanges)
)

// isSpace tells whether Python's \s matches a character.
func isSpace(r rune) bool { return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f) }
