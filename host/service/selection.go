package service

import (
	"context"
)

// Selection says which events of a service are wanted.
type Selection struct {
	Service Name
	// From is where to begin: with the first event that there is, unless it says otherwise.
	From From
	// Types and Keys let through events of these types and entities only; empty
	// lets all through.
	Types []Type
	Keys  []Key
}

// Page is a part of a service's events, as far as they are wanted.
type Page struct {
	// Events may be empty although there are more, when a filter lets little through.
	Events []*Event
	// Next is the position that was read up to. The next page begins after it.
	Next Position
	// AtHead says that there was nothing more when the page was read.
	AtHead bool
}

// Subscriber reads a service's events in order, each once. One goroutine at a time
// uses it. It holds nothing but its place, so there is nothing to close, and a slow
// one costs nobody else anything: those that are far from the end of the log wait for each
// other, see [Budget.Readers]. When the host has to open its journal again, a subscriber
// waits for that and goes on where it was.
type Subscriber interface {
	// Next waits for events and returns at least one and at most limit of them; 0 is as
	// many as is sensible. The slice is valid until the next call, or Release; the events may be
	// kept. When ctx ends, Next fails with its cause and has lost nothing. When the service is gone
	// or the host closes, it fails with that reason; resume at Position then. While the
	// service is stopped there is nothing new.
	Next(ctx context.Context, limit int) ([]*Event, error)
	// Release lets go of the events that Next returned last. It is for callers that wait
	// long before they call Next again.
	Release()
	// Position is how far the subscriber has come, also past events that are not wanted. A new
	// one that begins after it goes on without gap or repetition; see [AfterPosition].
	Position() Position
}
