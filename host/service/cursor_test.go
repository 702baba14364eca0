package service

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

var sampleCursor = Cursor{Position: 42, Origin: journal.Stamp{1, 2, 3, 4, 5, 6, 7, 8},
	Stamp: journal.Stamp{0xff, 0xfe, 0xfd}}

func TestCursorText(t *testing.T) {
	for _, p := range []Position{0, 1, 42, 1 << 40, ^Position(0)} {
		c := sampleCursor
		c.Position = p
		if got, err := ParseCursor(c.String()); err != nil || got != c {
			t.Errorf("%s: got %+v, %v, want %+v", c, got, err, c)
		}
	}
	// The form must not change: clients keep cursors.
	if got := sampleCursor.String(); got != "AgAAAAAAAAAqAQIDBAUGBwj__v0AAAAAAP_tLHE" {
		t.Errorf("the form changed: %s", got)
	}
	if _, err := ParseCursor("AQAAAAAAAAAqO5Uul4VrZq8"); KindOf(err) != KindBadCursor ||
		!strings.Contains(err.Error(), "earlier version") {
		t.Errorf("a cursor of version 1: %v", err)
	}
}

// TestCursorDamage changes each character and each length.
func TestCursorDamage(t *testing.T) {
	text := sampleCursor.String()
	refused := func(text string) {
		t.Helper()
		if _, err := ParseCursor(text); KindOf(err) != KindBadCursor {
			t.Errorf("%q: %v", text, err)
		}
	}
	for i := range text {
		for _, c := range []byte("AZaz09-_+/= %\x00\xff") {
			if text[i] != c {
				refused(text[:i] + string([]byte{c}) + text[i+1:])
			}
		}
		refused(text[:i])
	}
	for _, s := range []string{text + "A", text + "=", text + text, " " + text, "start", "end", "42"} {
		refused(s)
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add(sampleCursor.String())
	f.Add("")
	f.Add("AQAAAAAAAAAqv_LG4AAAAAA")
	f.Add("AgAAAAAAAAAqAQIDBAUGBwj__v0AAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			if KindOf(err) != KindBadCursor {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if again := c.String(); again != text {
			t.Errorf("%q and %q are the same cursor", text, again)
		}
	})
}
