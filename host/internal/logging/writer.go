package logging

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// WriterOptions are the choices of a [Writer]. A zero field means its default.
type WriterOptions struct {
	// Bytes bounds the lines that wait to be written. As many again may be on their way into a write that
	// blocks. Default 1 MiB.
	Bytes int
	// Notice makes the line, with its newline, that says that so many lines were dropped. Default: nothing is said.
	Notice func(lines uint64) []byte
}

// Writer is an [io.Writer] for lines that never waits: a goroutine of its own writes them. While that
// is held up, as nobody empties a pipe, lines are kept up to a bound, and then dropped; so are those of which
// the write failed, as the pipe's reader has gone. Its methods may be called concurrently.
type Writer struct {
	to io.Writer
	o  WriterOptions

	mu      sync.Mutex // guards all below
	waiting []byte     // whole lines
	dropped uint64     // lines, since New
	untold  uint64     // of them, those that no notice was queued for
	closed  bool

	wake chan struct{} // capacity 1: there is something waiting, or closed
	done chan struct{} // closed when the goroutine has ended
}

// NewWriter returns a writer to w, and starts its goroutine. Close it.
func NewWriter(w io.Writer, o WriterOptions) *Writer {
	if o.Bytes <= 0 {
		o.Bytes = 1 << 20
	}
	l := &Writer{to: w, o: o, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Write takes whole lines, all or none of them, and never fails. It keeps nothing of b.
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

// drop counts lines. The caller holds mu.
func (l *Writer) drop(lines uint64) {
	l.dropped += lines
	l.untold += lines
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

// run writes what is waiting, until the writer is closed and nothing is.
func (l *Writer) run() {
	defer close(l.done)
	var chunk []byte
	for range l.wake {
		for failed := false; ; {
			var untold uint64
			var closed bool
			chunk, untold, closed = l.next(chunk, failed)
			if len(chunk) == 0 && untold == 0 {
				if closed {
					return
				}
				break
			}
			failed = !l.write(chunk, untold)
		}
	}
}

// next takes what is waiting, and gives used, the memory of what it took the last time, in exchange. If that
// could not be written, there is nothing to tell before there is something to write.
func (l *Writer) next(used []byte, failed bool) (chunk []byte, untold uint64, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	chunk, l.waiting = l.waiting, used[:0]
	if len(chunk) > 0 || !failed {
		untold, l.untold = l.untold, 0
	}
	return chunk, untold, l.closed
}

// write writes lines, and that others were dropped after them. If it fails, the lines are dropped.
func (l *Writer) write(chunk []byte, untold uint64) bool {
	n, err := 0, error(nil)
	if len(chunk) > 0 {
		n, err = l.to.Write(chunk)
	}
	if err == nil && untold > 0 && l.o.Notice != nil {
		_, err = l.to.Write(l.o.Notice(untold))
		n = len(chunk)
	}
	if err == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(countLines(chunk[min(max(n, 0), len(chunk)):]))
	l.untold += untold
	return false
}

// Dropped is how many lines were not written.
func (l *Writer) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Close takes no more lines and waits until those that wait are written, or for ctx: then the goroutine stays in
// its write until that ends, which may be with the process, and the rest is lost. It may be called again.
func (l *Writer) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.signal()
	l.mu.Unlock()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
