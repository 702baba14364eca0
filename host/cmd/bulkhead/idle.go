package main

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// idleMemory returns memory to the system after a busy time. Go collects garbage only when memory is
// allocated, so an idle host would keep its largest heap for minutes.
type idleMemory struct {
	allocated uint64 // bytes, at the last check
	released  bool   // since the quiet time began
}

const (
	idleLook  = 5 * time.Second
	idleBytes = 16 << 20  // maximum allocation between two checks in a quiet time
	idleHeap  = 128 << 20 // smaller heaps are not worth it
)

// release checks whether the host is quiet, and returns memory once in each quiet time.
func (m *idleMemory) release() {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(samples)
	var bytes [4]uint64
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			bytes[i] = s.Value.Uint64()
		}
	}
	quiet := bytes[0]-m.allocated < idleBytes
	m.allocated = bytes[0]
	switch {
	case !quiet:
		m.released = false
	case !m.released && bytes[1]+bytes[2]+bytes[3] > idleHeap:
		debug.FreeOSMemory()
		m.released = true
	}
}
