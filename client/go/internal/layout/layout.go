// Package layout says which coefficients of an item's polynomials hold features and scores, as
// EncryptedScores in prediction.proto does.
package layout

import "fmt"

// Kind is a layout.
type Kind int

// The layouts that this module encrypts for.
const (
	// Row is for one row or a few: all features of a row in one ciphertext.
	Row Kind = iota + 1
	// Column is for batches: one feature of up to N rows in each ciphertext.
	Column
)

func (k Kind) String() string {
	if k == Column {
		return "column"
	}
	return "row"
}

// Layout lays out the items of an offer.
type Layout struct {
	Kind     Kind
	N        int
	Features int
	Scores   int
	// Classes is the number of classes that share a polynomial pair of the reply.
	Classes int
}

// New checks and makes a layout.
func New(kind Kind, n, features, scores, classes int) (*Layout, error) {
	l := &Layout{Kind: kind, N: n, Features: features, Scores: scores, Classes: classes}
	if kind == Column && classes != 1 {
		return nil, fmt.Errorf("in columns a polynomial holds one class, not %d", classes)
	}
	if kind == Row && (classes < 1 || classes > n/l.window()) {
		return nil, fmt.Errorf("%d windows of %d do not fit into %d", classes, l.window(), n)
	}
	return l, nil
}

// window is the number of coefficients that a row's features take in one ciphertext.
func (l *Layout) window() int { return min(l.Features, l.N) }

// Rows is the most rows that fit into an item.
func (l *Layout) Rows() int {
	if l.Kind == Column {
		return l.N
	}
	return l.N / (l.Classes * l.window())
}

// Ciphertexts is the number of ciphertexts of an item.
func (l *Layout) Ciphertexts() int {
	if l.Kind == Column {
		return l.Features
	}
	return (l.Features + l.N - 1) / l.N
}

// Pairs is the number of polynomial pairs of a reply.
func (l *Layout) Pairs() int { return (l.Scores + l.Classes - 1) / l.Classes }

// Plaintext writes the coefficients of one ciphertext of rows on the grid into N coefficients.
func (l *Layout) Plaintext(rows [][]uint64, ciphertext int, to []uint64) {
	clear(to)
	if l.Kind == Column {
		for r, row := range rows {
			to[r] = row[ciphertext]
		}
		return
	}
	first := ciphertext * l.N
	last := min(first+l.N, l.Features)
	stride := l.Classes * l.window()
	for r, row := range rows {
		copy(to[r*stride:], row[first:last])
	}
}

// ClassesIn returns the first class of a polynomial pair, and how many it has.
func (l *Layout) ClassesIn(pair int) (first, count int) {
	first = pair * l.Classes
	return first, min(l.Classes, l.Scores-first)
}

// Places returns the coefficients that hold the scores of a pair, by row and then by class.
func (l *Layout) Places(pair, rows int) []int {
	_, classes := l.ClassesIn(pair)
	places := make([]int, 0, rows*classes)
	if l.Kind == Column {
		for r := range rows {
			places = append(places, r)
		}
		return places
	}
	window := l.window()
	for r := range rows {
		for j := range classes {
			places = append(places, r*l.Classes*window+j*window+window-1)
		}
	}
	return places
}
