package stream

import (
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// blocks makes events, many small ones in one piece of memory. Who keeps one of them keeps
// the whole piece, and so what the others refer to: little, as large ones stand alone.
type blocks struct{ room []service.Event }

const (
	together = 64      // events in a piece
	alone    = 1 << 10 // bytes of data and metadata from which on an event is no part of one
)

// next makes an event with so many bytes of data and metadata. left is how many there may be yet.
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
