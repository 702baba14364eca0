// Package consumer reads a service's log from one place on: it waits for what comes, and goes on
// where it was when the host has had to open its journal again. It knows nothing of what its
// events are for.
package consumer

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Generation tells one open journal from the next. Two are compared with ==; nil is none.
type Generation any

// Log is a service's log, which is read through whatever journal is open. It is safe for concurrent use.
type Log interface {
	// Open opens a cursor after a position on the journal that is open now, and says which one that
	// is. Resumed says that somebody has been there: position 0 is then the place before the first
	// event of all, and else the start of what there is.
	Open(after service.Position, resumed bool) (Cursor, Generation, error)
	// Now is the journal that is open, nil while there is none, and a channel that is closed when
	// that changes.
	Now() (Generation, <-chan struct{})
	// Closing is closed when no other journal will be opened.
	Closing() <-chan struct{}
}

// Cursor reads a log through one journal; see [service.Subscriber]. One goroutine at a time uses it.
type Cursor interface {
	service.Subscriber
	// Poll returns at most limit events without waiting for more. atHead says that there was nothing
	// more.
	Poll(ctx context.Context, limit int) (events []*service.Event, atHead bool, err error)
}

// Consumer reads a log in order, each event once. It implements [service.Subscriber].
type Consumer struct {
	log    Log
	cursor Cursor
	on     Generation // that cursor reads through
}

var _ service.Subscriber = (*Consumer)(nil)

// New begins to read after a position; resumed is as in [Log].
func New(log Log, after service.Position, resumed bool) (*Consumer, error) {
	c := &Consumer{log: log}
	if err := c.begin(after, resumed); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Consumer) begin(after service.Position, resumed bool) error {
	cursor, on, err := c.log.Open(after, resumed)
	if err == nil {
		c.cursor, c.on = cursor, on
	}
	return err
}

// Next implements [service.Subscriber].
func (c *Consumer) Next(ctx context.Context, limit int) ([]*service.Event, error) {
	for {
		events, err := c.cursor.Next(ctx, limit)
		if err == nil || ctx.Err() != nil {
			return events, err
		}
		if moved, why := c.move(ctx); !moved {
			return nil, errors.Join(why, err)
		}
	}
}

// move goes over to the journal that has replaced the consumer's, once it is open. false means
// that there is no other one, or why it cannot be read.
func (c *Consumer) move(ctx context.Context) (bool, error) {
	for {
		now, changed := c.log.Now()
		switch {
		case now == c.on:
			return false, nil
		case now != nil:
			err := c.begin(c.cursor.Position(), true)
			return err == nil, err
		}
		select {
		case <-changed:
		case <-c.log.Closing():
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// Poll returns at most limit events without waiting for more. atHead says that there was nothing more.
// It does not wait for a journal either.
func (c *Consumer) Poll(ctx context.Context, limit int) (events []*service.Event, atHead bool, err error) {
	return c.cursor.Poll(ctx, limit)
}

// Release implements [service.Subscriber].
func (c *Consumer) Release() { c.cursor.Release() }

// Position implements [service.Subscriber].
func (c *Consumer) Position() service.Position { return c.cursor.Position() }
