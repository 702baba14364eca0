// Package yield has long work on memory let others run. Go takes a processor away from a
// goroutine only after about ten milliseconds, and those that wait in the same processor's queue
// stand still until then.
package yield

import "runtime"

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

// Append appends p to b like append, in steps.
func Append(b, p []byte) []byte {
	for len(p) > Step {
		b, p = append(b, p[:Step]...), p[Step:]
		runtime.Gosched()
	}
	return append(b, p...)
}
