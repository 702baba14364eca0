package badgerlog

import (
	"context"
	"runtime/debug"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A damaged block of a table makes Badger panic, and a file that was cut short is a fault of memory where it is
// read through its map. On the goroutine of the reader that becomes an error. On Badger's own (its merges) nobody
// can catch it.

// Blocks implements journal.LogStore.
func (l *Log) Blocks(
	ctx context.Context, log journal.LogName, from journal.Position, yield func(journal.Block) error,
) error {
	inside := false // of yield, whose panics are not Badger's
	return l.guard(&inside, func() error {
		return l.blocks(ctx, log, from, func(b journal.Block) error {
			inside = true
			err := yield(b)
			inside = false
			return err
		})
	})
}

// Last implements journal.LogStore.
func (l *Log) Last(_ context.Context, log journal.LogName) (b journal.Block, ok bool, err error) {
	err = l.guard(new(bool), func() error { b, ok, err = l.last(log); return err })
	return b, ok, err
}

// Logs implements journal.LogStore.
func (l *Log) Logs(context.Context) (names []journal.LogName, err error) {
	err = l.guard(new(bool), func() error { names, err = l.logs(); return err })
	return names, err
}

// guard runs a read. A fault within a value leaves its file locked within Badger, so nothing is written after it.
func (l *Log) guard(inside *bool, read func() error) error {
	fault, err := guardYield(inside, read)
	if fault {
		l.faulted.Store(true)
	}
	return err
}

// guardRead runs a read that calls nobody back.
func guardRead(read func() error) error {
	_, err := guardYield(new(bool), read)
	return err
}

// guardYield runs a read. A panic while it is not inside the caller's own code is damage. It says also whether it was a
// fault of memory that is a map of a file.
func guardYield(inside *bool, read func() error) (fault bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if *inside {
			return
		}
		if r := recover(); r != nil {
			_, fault = r.(interface{ Addr() uintptr }) // see debug.SetPanicOnFault
			err = &journal.Error{Op: "read", Kind: journal.KindCorrupt,
				Detail: "a block of a table is damaged: " + firstLine(r)}
		}
	}()
	return false, read()
}
