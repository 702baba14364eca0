package logging

import (
	"bytes"
	"context"
	"io"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
)

// WriterOptions configure a [Writer]. A zero field means its default.
type WriterOptions struct {
	// Bytes bounds the lines that wait to be written. The same number of bytes may be in memory
	// again for the write under way. Default 1 MiB.
	Bytes int
	// Notice formats the line, with its newline, that reports how many lines were dropped. Default:
	// drops are not reported.
	Notice func(lines uint64) []byte
}

// Writer is an [io.Writer] for lines that never blocks: its goroutine does the writing. While a
// write blocks, for example because nobody reads the pipe, lines are kept up to a bound, and
// dropped beyond it. Lines are also dropped when their write fails, for example because the reader
// of the pipe is gone. Its methods are safe for concurrent use.
type Writer struct {
	to io.Writer
	o  WriterOptions

	mu         sync.Mutex // guards all below
	waiting    []byte     // whole lines
	dropped    uint64     // lines, since NewWriter
	unreported uint64     // part of dropped that no notice was written for yet
	closed     bool

	wake chan struct{} // capacity 1: there is something waiting, or closed
	life lifecycle.Life
}

// NewWriter returns a writer to w and starts its goroutine, which [Writer.Close] ends.
func NewWriter(w io.Writer, o WriterOptions) *Writer {
	if o.Bytes <= 0 {
		o.Bytes = 1 << 20
	}
	l := &Writer{to: w, o: o, wake: make(chan struct{}, 1)}
	l.life.Go(l.run)
	return l
}

// Write queues whole lines, all of them or none, and never fails. It does not retain b.
func (l *Writer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := countLines(b)
	if l.closed || len(l.waiting)+len(b) > l.o.Bytes {
		l.drop(n)
		return len(b), nil
	}
	l.waiting = append(l.waiting, b...)
	l.signal()
	return len(b), nil
}

// drop counts dropped lines. The caller holds mu.
func (l *Writer) drop(lines uint64) {
	l.dropped += lines
	l.unreported += lines
}

func (l *Writer) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func countLines(b []byte) uint64 {
	n := bytes.Count(b, []byte{'\n'})
	if len(b) > 0 && b[len(b)-1] != '\n' {
		n++
	}
	return uint64(n)
}

// run writes the queued lines, until the writer is closed and the queue is empty.
func (l *Writer) run() {
	var chunk []byte
	for range l.wake {
		for failed := false; ; {
			var unreported uint64
			var closed bool
			chunk, unreported, closed = l.next(chunk, failed)
			if len(chunk) == 0 && unreported == 0 {
				if closed {
					return
				}
				break
			}
			failed = !l.write(chunk, unreported)
		}
	}
}

// next takes the queue and gives it the buffer used, that of the previous chunk, in exchange.
// failed says that the previous write failed: then a notice is due only together with new lines, so
// that a broken pipe is not retried in a loop.
func (l *Writer) next(used []byte, failed bool) (chunk []byte, unreported uint64, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	chunk, l.waiting = l.waiting, used[:0]
	if len(chunk) > 0 || !failed {
		unreported, l.unreported = l.unreported, 0
	}
	return chunk, unreported, l.closed
}

// write writes the chunk and then, if unreported is not 0, a notice. If a write fails, it counts
// the lines that were not written as dropped and returns false.
func (l *Writer) write(chunk []byte, unreported uint64) bool {
	n, err := 0, error(nil)
	if len(chunk) > 0 {
		n, err = l.to.Write(chunk)
	}
	if err == nil && unreported > 0 && l.o.Notice != nil {
		_, err = l.to.Write(l.o.Notice(unreported))
		n = len(chunk)
	}
	if err == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(countLines(chunk[min(max(n, 0), len(chunk)):]))
	l.unreported += unreported
	return false
}

// Dropped returns how many lines were not written.
func (l *Writer) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Close stops taking lines, and waits until the queued ones are written or ctx ends. In the second
// case the goroutine stays in its write until that returns, possibly until the process ends; the
// queued lines may be lost.
func (l *Writer) Close(ctx context.Context) error {
	return l.life.Close(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = true
		l.signal()
	}, nil)
}
