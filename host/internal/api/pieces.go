package api

import (
	"encoding/base64"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
)

// Form is the form of data in the text that contains it.
type Form uint8

// The forms of data.
const (
	AsIs    Form = iota // JSON, unchanged
	OneLine             // JSON with spaces in place of line breaks, which JSON strings cannot contain
	Base64              // anything else, between quotes
)

// Pieces is a text that is made while it is written: large data in it is neither copied nor encoded as a
// whole. The zero value is an empty text.
type Pieces struct {
	text []byte // the text before and after the data
	hole int    // where the data goes
	data []byte // not owned, and not changed while it is in use
	form Form
}

// maxInline is the size up to which data is copied: below it one write is cheaper than several.
const maxInline = 16 << 10

// pieceBytes bounds a piece, and is a multiple of four, so that base64 can be cut.
const pieceBytes = 64 << 10

// Text is a text without data of its own to be made.
func Text(text []byte) Pieces { return Pieces{text: text} }

// Around is data between a head and a tail. It keeps data, and takes over head.
func Around(head, data []byte, form Form, tail []byte) Pieces {
	p := Pieces{text: head, hole: len(head), data: data, form: form}
	p.text = append(p.text, tail...)
	return p
}

// Within is p with something before and after it. It appends to before.
func (p *Pieces) Within(before, after []byte) Pieces {
	q := *p
	q.hole += len(before)
	q.text = append(append(before, p.text...), after...)
	return q
}

// Len is the size of the text, in bytes.
func (p *Pieces) Len() int {
	if p.form == Base64 && p.data != nil {
		return len(p.text) + base64.StdEncoding.EncodedLen(len(p.data))
	}
	return len(p.text) + len(p.data)
}

// Size is what the text takes in memory, in bytes.
func (p *Pieces) Size() int { return cap(p.text) + len(p.data) }

// Short returns the text if it is in one piece.
func (p *Pieces) Short() (text []byte, ok bool) { return p.text, len(p.data) == 0 }

// Each yields the text in pieces of at most 64 KiB, or more where they exist already.
// A piece is valid during the yield only. The first error ends it and is returned.
func (p *Pieces) Each(yield func(piece []byte) error) error {
	if len(p.data) == 0 {
		return yield(p.text)
	}
	if err := yield(p.text[:p.hole]); err != nil {
		return err
	}
	if err := p.eachOfData(yield); err != nil {
		return err
	}
	return yield(p.text[p.hole:])
}

func (p *Pieces) eachOfData(yield func(piece []byte) error) error {
	var scratch []byte
	step := pieceBytes
	switch p.form {
	case Base64:
		scratch, step = make([]byte, 0, pieceBytes), pieceBytes/4*3
	case OneLine:
		scratch = make([]byte, 0, pieceBytes)
	}
	for rest := p.data; len(rest) > 0; {
		piece := rest[:min(step, len(rest))]
		rest = rest[len(piece):]
		switch p.form {
		case Base64:
			piece = base64.StdEncoding.AppendEncode(scratch, piece)
		case OneLine:
			piece = append(scratch, piece...)
			for i, c := range piece {
				if c == '\n' || c == '\r' {
					piece[i] = ' '
				}
			}
		}
		if err := yield(piece); err != nil {
			return err
		}
	}
	return nil
}

// bodyIn starts a member with what a guest wrote: as it is if it is JSON, else in
// base64. It returns where the data goes, unless it is small and so in the text already.
// Nothing is nothing. A guest's bytes are never taken for JSON unchecked, as they could
// end the object around them.
func bodyIn(p Pieces, name string, data []byte) Pieces {
	if len(data) == 0 {
		return p
	}
	b := append(append(p.text, ',', '"'), name...)
	if isJSON(data) {
		b = append(b, '"', ':')
		if len(data) <= maxInline {
			return Text(append(b, data...))
		}
		return Pieces{text: b, hole: len(b), data: data}
	}
	b = append(b, `_base64":"`...)
	if len(data) <= maxInline {
		return Text(append(base64.StdEncoding.AppendEncode(b, data), '"'))
	}
	p = Pieces{text: b, hole: len(b), data: data, form: Base64}
	p.text = append(p.text, '"')
	return p
}

// isJSON reports whether data is one JSON value in UTF-8. encoding/json takes
// strings that are not UTF-8 for valid; a WebSocket text message must not have
// them.
func isJSON(data []byte) bool { return utf8.Valid(data) && jsoncheck.Valid(data) }

// Append appends the whole text.
func (p *Pieces) Append(b []byte) []byte {
	_ = p.Each(func(piece []byte) error { // it cannot fail
		b = append(b, piece...)
		return nil
	})
	return b
}
