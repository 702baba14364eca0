package safetext

import (
	"io"
	"unicode/utf8"
)

// Writer escapes what is written to it like [Lines], even characters that are split between writes.
// It is the last line of defence; newlines are taken to be the program's own. It is not safe for
// concurrent use.
type Writer struct {
	to   io.Writer
	held []byte // an incomplete character, at most 3 bytes
	out  []byte // reused
}

// NewWriter returns a Writer to w. Call Flush at the end.
func NewWriter(w io.Writer) *Writer { return &Writer{to: w} }

// Write implements io.Writer. After an error, the number of bytes written is unknown.
func (w *Writer) Write(b []byte) (int, error) {
	all := b
	if len(w.held) > 0 {
		all = append(w.held, b...)
	}
	whole := len(all)
	for back := 1; back < utf8.UTFMax && back <= len(all); back++ {
		if start := len(all) - back; utf8.RuneStart(all[start]) {
			if !utf8.FullRune(all[start:]) {
				whole = start
			}
			break
		}
	}
	w.out = appendText(w.out[:0], all[:whole], true)
	w.held = append([]byte(nil), all[whole:]...)
	if len(w.out) > 0 {
		if _, err := w.to.Write(w.out); err != nil {
			return 0, err
		}
	}
	if cap(w.out) > 64<<10 {
		w.out = nil
	}
	return len(b), nil
}

// Flush writes the incomplete character that is held, escaped.
func (w *Writer) Flush() error {
	rest := appendText(nil, w.held, true)
	w.held = nil
	if len(rest) == 0 {
		return nil
	}
	_, err := w.to.Write(rest)
	return err
}
