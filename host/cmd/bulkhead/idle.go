package main

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// idleMemory gives the memory of a busy time back to the system when it is over. Go
// collects garbage when memory is asked for, so a host that has become quiet would keep
// all that it ever had for minutes.
type idleMemory struct {
	allocated uint64 // bytes, when it was last looked
	released  bool   // since it has been quiet
}

const (
	idleLook  = 5 * time.Second
	idleBytes = 16 << 20  // are allocated between two looks in a quiet time, at most
	idleHeap  = 128 << 20 // are not worth it
)

// release looks how things are, and gives memory back once in a quiet time.
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
