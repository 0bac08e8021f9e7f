package sealserve_test

import (
	"os"
	"strings"
	"testing"
)

// TestDocs checks that the example of the documentation is one that compiles.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/go.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```go\n")
	block, _, found := strings.Cut(rest, "```\n")
	if indented := "\t" + strings.ReplaceAll(strings.TrimSpace(block), "\n", "\n\t"); !found ||
		!strings.Contains(string(examples), indented) {
		t.Error("the example of docs/go.md is not in example_test.go")
	}
}
