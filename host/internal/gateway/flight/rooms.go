package flight

import "github.com/bulkhead-wasm/bulkhead/host/service"

const (
	// CallBytes is what a command or query takes in memory beside its data, in bytes, including its place in
	// the queue of answers.
	CallBytes = 1 << 10
	// QueryBytes is the same for a query on a stream, which has a waiting goroutine.
	QueryBytes = 5 << 10
	// StreamBytes is what a stream takes beside what passes through it: buffers of the connection and the
	// library, and small things.
	StreamBytes = 48 << 10
)

const (
	// readerBytes is what a reader of events takes until it ends, in bytes: its goroutine and the events that
	// it filters.
	readerBytes = 12 << 10
	// filterBytes is what each type and each key of its filter takes beside its text, in several lists and
	// sets.
	filterBytes = 384
)

// ReaderRoom is what a reader with a selection takes until it ends, in bytes.
func ReaderRoom(sel *service.Selection) int {
	n := readerBytes + filterBytes*(len(sel.Types)+len(sel.Keys))
	for _, t := range sel.Types {
		n += 2 * len(t)
	}
	for _, k := range sel.Keys {
		n += 2 * len(k)
	}
	return n
}

// Subscribe takes n bytes that a reader of events holds until it calls ended.
func (f *Account) Subscribe(n int) (ended func(), err error) {
	if err := f.Take(n); err != nil {
		return nil, err
	}
	f.lasting.Add(int64(n))
	return func() {
		f.lasting.Add(-int64(n))
		f.Give(n)
	}, nil
}
