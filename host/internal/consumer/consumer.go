// Package consumer reads a service's log from a place on. It waits for new events, and continues at its place
// when the host has opened its journal again. It does not know what the events are for.
package consumer

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Generation identifies one opening of the journal. Compare generations with ==; nil means none.
type Generation any

// Log is a service's log, read through whatever journal is open. It is safe for concurrent use.
type Log interface {
	// Open opens a cursor after a position on the journal that is open now, and returns that journal's
	// generation. If resumed is true, a reader has already been at the position, and position 0 is the place
	// before the very first event. Otherwise 0 is the start of what is readable.
	Open(after service.Position, resumed bool) (Cursor, Generation, error)
	// Now is the generation of the open journal, nil while there is none, and a channel that is closed when
	// that changes.
	Now() (Generation, <-chan struct{})
	// Closing is closed when no further journal will be opened.
	Closing() <-chan struct{}
}

// Cursor reads a log through one journal; see [service.Subscriber]. Only one goroutine at a time may use it.
type Cursor interface {
	service.Subscriber
	// Poll returns at most limit events without waiting for more. atHead says that there were no more.
	Poll(ctx context.Context, limit int) (events []*service.Event, atHead bool, err error)
}

// Consumer reads a log in order, each event once. It implements [service.Subscriber].
type Consumer struct {
	log    Log
	cursor Cursor
	on     Generation // of cursor
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

// move changes to the next journal once it is open. false means that there will be none; an error, that it
// cannot be read.
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

// Poll returns at most limit events without waiting for more. atHead says that there were no more. It does
// not wait for a journal either.
func (c *Consumer) Poll(ctx context.Context, limit int) (events []*service.Event, atHead bool, err error) {
	return c.cursor.Poll(ctx, limit)
}

// Release implements [service.Subscriber].
func (c *Consumer) Release() { c.cursor.Release() }

// Position implements [service.Subscriber].
func (c *Consumer) Position() service.Position { return c.cursor.Position() }
