package service

import (
	"context"
)

// Turn is a place for milliseconds of work for a client. Only one goroutine at a time may use it. Work is
// done between Begin, which is called again from time to time, and Rest or End.
type Turn interface {
	// Begin waits for a turn, or continues one. It fails when ctx ends, or when too many wait.
	Begin(ctx context.Context) error
	// Rest keeps the turn while its owner waits for someone, but lets others take it.
	Rest()
	// End gives up the turn, if there is one.
	End()
}

type readerKey struct{}

// WithReader names the reader of logs in a context, such as a connection. Readers of a service take turns;
// all reads under one name share one reader's turns.
func WithReader(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, readerKey{}, name)
}

// ReaderOf is the name given with [WithReader], or empty.
func ReaderOf(ctx context.Context) string {
	name, _ := ctx.Value(readerKey{}).(string)
	return name
}
