package service

import (
	"context"
)

// Selection says which events of a service to read.
type Selection struct {
	Service Name
	// From is where to begin. Default: the first readable event.
	From From
	// Types and Keys select events of these types and entities; empty: all.
	Types []Type
	Keys  []Key
}

// Page is a part of a service's selected events.
type Page struct {
	// Events may be empty although there are more, if the filter matches few events.
	Events []*Event
	// Next is the position up to which the log was read. The next page begins after it.
	Next Position
	// AtHead says that there were no more events when the page was read.
	AtHead bool
}

// Subscriber reads a service's events in order, each once. Only one goroutine at a time may use it. It holds
// nothing but its place, so it need not be closed. A slow subscriber costs others nothing; those far from the
// end of the log wait for each other, see [Budget.Readers]. When the host opens its journal again, a
// subscriber waits, and goes on at its place.
type Subscriber interface {
	// Next waits for events. It returns at least one, and at most limit of them; limit 0 means a sensible
	// number. The slice is valid until the next call of Next or Release; the events may be kept. When ctx
	// ends, Next fails with its cause and loses nothing. If the service is deleted or the host closes, it
	// fails with that reason; resume at Position then. While the service is stopped there are no new events.
	Next(ctx context.Context, limit int) ([]*Event, error)
	// Release drops the events that Next returned last. It is for callers that wait long before they call
	// Next again.
	Release()
	// Position is how far the subscriber has read, including events that are not selected. A new subscriber
	// after this position continues without gap or repetition; see [AfterPosition].
	Position() Position
}
