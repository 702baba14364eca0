package service

import (
	"context"
)

// Turn is a place for work of milliseconds that is done for a client. One goroutine at a
// time uses it. Work is done between Begin, which is called again now and then, and Rest
// or End.
type Turn interface {
	// Begin waits for a turn, or goes on with one. It fails when ctx ends, or when too
	// many wait.
	Begin(ctx context.Context) error
	// Rest keeps the turn, but lets others take it away: its owner waits for somebody.
	Rest()
	// End gives the turn up. Without one it does nothing.
	End()
}

type readerKey struct{}

// WithReader names who reads logs under a context, a connection for instance. Readers of a
// service take turns; all that reads under one name shares those of one.
func WithReader(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, readerKey{}, name)
}

// ReaderOf is the name that [WithReader] gave, or empty.
func ReaderOf(ctx context.Context) string {
	name, _ := ctx.Value(readerKey{}).(string)
	return name
}
