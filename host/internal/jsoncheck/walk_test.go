package jsoncheck

import (
	"bytes"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// A walk finds the ends of all parts, and refuses what Valid refuses.
func TestPiecesEndWhereTheyDo(t *testing.T) {
	for _, text := range jsonTexts {
		w := Walker{Text: []byte("  " + text)}
		end, ok := w.Value(2)
		if got := ok && w.Space(end) == len(w.Text); got != Valid([]byte(text)) {
			t.Errorf("%q: %v up to %d", text, got, end)
		}
	}
	w := Walker{Text: []byte(`[ "a\"b",-1.5e3 ]`)}
	if end, ok := w.String(2); !ok || end != 8 {
		t.Errorf("the string ends at %d, %v", end, ok)
	}
	if end, ok := w.Number(9); !ok || end != 15 || w.Space(end) != 16 {
		t.Errorf("the number ends at %d, %v", end, ok)
	}
	if _, ok := w.String(len(w.Text) - 1); ok {
		t.Error("a string without an end is one")
	}
}

// Rest is called during a walk over a long part.
func TestAWalkRests(t *testing.T) {
	long := strings.Repeat("x", 4*yield.Step)
	for _, text := range []string{`"` + long + `"`, `[` + strings.Repeat("1,", 2*yield.Step) + `1]`,
		strings.Repeat(" ", 4*yield.Step) + "1"} {
		rests := 0
		w := Walker{Text: []byte(text), Rest: func() { rests++ }}
		if _, ok := w.Value(0); !ok || rests < 3 {
			t.Errorf("%.10q: %d rests", text, rests)
		}
	}
	w := Walker{Text: bytes.Repeat([]byte(" "), 9)}
	if w.Space(3) != 9 {
		t.Error("space does not end with the text")
	}
}
