package jsoncheck

import "github.com/bulkhead-wasm/bulkhead/internal/yield"

// Walker finds the ends of the parts of a JSON text, for callers that examine them one by one. Each
// method takes the offset of a part and returns the offset after it, or false if it is not JSON. It
// is not safe for concurrent use.
type Walker struct {
	// Text is the JSON text.
	Text []byte
	// Rest, if not nil, is called every yield.Step bytes within long parts, instead of the
	// scheduler. It cannot stop the walk.
	Rest func()
}

func (w *Walker) scanner(at int) scanner {
	return scanner{b: w.Text, at: at, yield: at + yield.Step, hook: w.Rest}
}

// Space skips white space.
func (w *Walker) Space(at int) int {
	if at < len(w.Text) && w.Text[at] > ' ' {
		return at
	}
	s := w.scanner(at)
	return s.space()
}

// Value walks over one value, including what is nested in it, and white space before it.
func (w *Walker) Value(at int) (end int, ok bool) {
	s := w.scanner(at)
	ok = s.value()
	return s.at, ok
}

// String walks over a string that begins at the offset with its quotation mark.
func (w *Walker) String(at int) (end int, ok bool) {
	if end = shortText(w.Text, at+1); end > 0 {
		return end, true
	}
	s := w.scanner(at)
	ok = s.text()
	return s.at, ok
}

// Number walks over a number that begins at the offset.
func (w *Walker) Number(at int) (end int, ok bool) {
	if end = shortNumber(w.Text, at); end > 0 {
		return end, true
	}
	s := w.scanner(at)
	ok = s.number()
	return s.at, ok
}
