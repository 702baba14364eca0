// Package yield has long work in memory let others run. Go takes a processor away from a
// goroutine only after about ten milliseconds, and those that wait in the same processor's queue
// stand still until then.
package yield

import (
	"io"
	"runtime"
	"strings"
	"unsafe"
)

// Step is after how many bytes work yields: copying and hashing that much takes about a tenth of
// a millisecond.
const Step = 128 << 10

// Work counts what one goroutine has done. The zero value is ready.
type Work struct{ bytes int }

// Did notes work on so many bytes, and yields when a step is full.
func (w *Work) Did(bytes int) {
	if w.bytes += bytes; w.bytes >= Step {
		w.bytes = 0
		runtime.Gosched()
	}
}

// Write writes p in steps to what does not fail, such as a hash. Go cannot interrupt the assembly
// of hashes at all: one of 32 MiB would keep a processor for tens of milliseconds, and everybody
// waiting for the garbage collector.
func Write(to io.Writer, p []byte) {
	for len(p) > Step {
		_, _ = to.Write(p[:Step])
		p = p[Step:]
		runtime.Gosched()
	}
	_, _ = to.Write(p)
}

// Uncleared is new memory, of which length is 0 and capacity at least n. Unlike make it does not
// clear the memory, which takes a millisecond for a few megabytes, in one step. What is in it is
// unknown: append to it.
func Uncleared(n int) []byte {
	if n < Step {
		return make([]byte, 0, n)
	}
	var b strings.Builder
	b.Grow(n) // "at least n bytes can be written to b without another allocation"
	b.WriteByte(0)
	return unsafe.Slice(unsafe.StringData(b.String()), n)[:0]
}

// Append appends p to b like append, in steps.
func Append(b, p []byte) []byte {
	for len(p) > Step {
		b, p = append(b, p[:Step]...), p[Step:]
		runtime.Gosched()
	}
	return append(b, p...)
}
