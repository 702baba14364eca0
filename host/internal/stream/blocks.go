package stream

import (
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// blocks allocates events, many small ones at a time in one slice. A reference to one of them keeps
// the whole slice in memory, with the data of its events. That is little, because large events are
// allocated alone.
type blocks struct{ room []service.Event }

const (
	together = 64      // events in one allocation
	alone    = 1 << 10 // from this many bytes of data and metadata on, an event is allocated alone
)

// next allocates an event with the given number of bytes of data and metadata. left is an upper
// bound of how many more events the caller needs.
func (b *blocks) next(bytes, left int) *service.Event {
	if bytes >= alone {
		return new(service.Event)
	}
	if len(b.room) == 0 {
		b.room = make([]service.Event, min(together, left))
	}
	e := &b.room[0]
	b.room = b.room[1:]
	return e
}
