package client

import (
	"bytes"
	"io"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// told passes on the progress of an upload or a deployment. The goroutine that sends the module calls it, and
// the one that reads the answer. It passes on one report at a time, until end is called.
type told struct {
	mu sync.Mutex             // held for the call of to
	to func(service.Progress) // nil: no function, or end was called
}

func tell(to func(service.Progress)) *told { return &told{to: to} }

func (t *told) tell(p service.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.to != nil {
		t.to(p)
	}
}

// end returns when no further report will be passed on.
func (t *told) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.to = nil
}

// counted is a module as a request body that reports how much of it was read.
func (t *told) counted(module []byte) io.Reader {
	r := bytes.NewReader(module)
	if t.to == nil {
		return r
	}
	return &countingReader{Reader: r, total: int64(len(module)), told: t}
}

type countingReader struct {
	*bytes.Reader
	total int64
	told  *told
}

// Read implements io.Reader.
func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.told.tell(service.Progress{Stage: "uploading", Done: r.total - int64(r.Len()), Total: r.total})
	return n, err
}

// WriteTo hides that of bytes.Reader, which would write everything at once.
func (r *countingReader) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{r})
}
