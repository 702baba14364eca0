package archtest

import (
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Lines of Go code have at most maxColumns columns, where a tab takes tabColumns.
const (
	maxColumns = 120
	tabColumns = 4
)

// columns is the width of a line.
func columns(line string) int {
	return utf8.RuneCountInString(line) + (tabColumns-1)*strings.Count(line, "\t")
}

// rawLines returns the numbers of the lines, from 1, with a raw string. Such a string cannot be broken: a
// struct tag, or a text in which line breaks matter.
func rawLines(src []byte) map[int]bool {
	var s scanner.Scanner
	file := token.NewFileSet().AddFile("", -1, len(src))
	s.Init(file, src, nil, 0)
	raw := map[int]bool{}
	for {
		pos, tok, text := s.Scan()
		if tok == token.EOF {
			return raw
		}
		if tok == token.STRING && text[0] == '`' {
			first := file.Line(pos)
			for n := range strings.Count(text, "\n") + 1 {
				raw[first+n] = true
			}
		}
	}
}

// wideLines returns the numbers of the lines, from 1, that are too wide and have no raw string.
func wideLines(src []byte) []int {
	raw := rawLines(src)
	var wide []int
	n := 0
	for line := range strings.Lines(string(src)) {
		n++
		if columns(strings.TrimSuffix(line, "\n")) > maxColumns && !raw[n] {
			wide = append(wide, n)
		}
	}
	return wide
}

func TestWidth(t *testing.T) {
	for _, s := range sources(t) {
		src, err := os.ReadFile(filepath.Join(root(t), s.name))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range wideLines(src) {
			t.Errorf("%s:%d has more than %d columns; break the line", s.name, n, maxColumns)
		}
	}
}

func TestWideLinesAreFound(t *testing.T) {
	long := strings.Repeat("x", maxColumns)
	src := "package p\n" +
		"// " + long + "\n" + // 2: a comment is broken
		"var a = `" + long + "`\n" +
		"var b = `\n" + long + long + "\n`\n" +
		"var c = \"" + long + "\"\n" + // 7: a string is broken with +
		"\t\tvar d = " + strings.Repeat("y", maxColumns-15) + "\n" + // 8: two tabs and "var d = " take 16
		"var e = " + strings.Repeat("z", maxColumns-8) + "\n"
	got := wideLines([]byte(src))
	if want := []int{2, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}
