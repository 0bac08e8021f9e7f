// Package printable makes texts of the service safe to show: shown as they are, they could move a
// terminal's cursor, forge a line of a log, or reverse the order of what follows.
package printable

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// The most characters that are shown.
const (
	NameCharacters    = 256
	MessageCharacters = 1000
)

const cut = "..."

// Text escapes what is not printable in a text, and cuts it after so many characters.
func Text(text string, most int) string {
	var b strings.Builder
	count := 0
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		shown := text[i : i+size]
		if !strconv.IsPrint(r) || (r == utf8.RuneError && size == 1) {
			shown = strings.Trim(strconv.QuoteToASCII(shown), `"`)
		}
		count += utf8.RuneCountInString(shown)
		if count > most {
			return firstCharacters(b.String(), most-len(cut)) + cut
		}
		b.WriteString(shown)
		i += size
	}
	return b.String()
}

func firstCharacters(text string, count int) string {
	for i := range text {
		if count == 0 {
			return text[:i]
		}
		count--
	}
	return text
}

// Name escapes a name and cuts it.
func Name(text string) string { return Text(text, NameCharacters) }

// Is tells whether a text is shown as it is, as a name.
func Is(text string) bool { return Name(text) == text }
