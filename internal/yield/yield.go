// Package yield lets long work in memory yield the processor. Go interrupts a goroutine only after about ten
// milliseconds, and until then the goroutines in the same processor's queue wait.
package yield

import (
	"io"
	"runtime"
	"strings"
	"unsafe"
)

// Step is the number of bytes after which work yields. Copying and hashing that much takes about a tenth of a
// millisecond.
const Step = 128 << 10

// Work counts the work of one goroutine. The zero value is ready.
type Work struct{ bytes int }

// Did records work on some bytes, and yields when a step is complete.
func (w *Work) Did(bytes int) {
	if w.bytes += bytes; w.bytes >= Step {
		w.bytes = 0
		runtime.Gosched()
	}
}

// Write writes p in steps to a writer that cannot fail, such as a hash. Go cannot interrupt the assembly of hashes
// at all: hashing 32 MiB at once would block a processor for tens of milliseconds, and with it everybody who waits
// for the garbage collector.
func Write(to io.Writer, p []byte) {
	for len(p) > Step {
		_, _ = to.Write(p[:Step])
		p = p[Step:]
		runtime.Gosched()
	}
	_, _ = to.Write(p)
}

// Uncleared returns new memory with length 0 and a capacity of at least n bytes. Unlike make it does not clear the
// memory, which would take a millisecond for a few megabytes, in one step. Its contents are undefined: only append
// to it.
func Uncleared(n int) []byte {
	if n < Step {
		return make([]byte, 0, n)
	}
	var b strings.Builder
	b.Grow(n) // documented: "at least n bytes can be written to b without another allocation"
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
