package jsoncheck

import "github.com/bulkhead-wasm/bulkhead/internal/yield"

// Walker finds where the pieces of a JSON text end, for who looks at them one by one. Each
// method takes where a piece begins and returns the index after it; false means that it is
// not JSON. It is not safe for concurrent use.
type Walker struct {
	// Text is what is walked over.
	Text []byte
	// Rest, if not nil, is called within long pieces each yield.Step bytes, instead of
	// letting others run. It cannot stop the walk.
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

// Value walks over one value with all that is in it. White space may be in front of it.
func (w *Walker) Value(at int) (end int, ok bool) {
	s := w.scanner(at)
	ok = s.value()
	return s.at, ok
}

// String walks over a string, whose quotation mark is right there.
func (w *Walker) String(at int) (end int, ok bool) {
	if end = shortText(w.Text, at+1); end > 0 {
		return end, true
	}
	s := w.scanner(at)
	ok = s.text()
	return s.at, ok
}

// Number walks over a number, which begins right there.
func (w *Walker) Number(at int) (end int, ok bool) {
	if end = shortNumber(w.Text, at); end > 0 {
		return end, true
	}
	s := w.scanner(at)
	ok = s.number()
	return s.at, ok
}
