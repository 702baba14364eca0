package badgerengine

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Damaged blocks make Badger panic, or fault on the map of a file that was cut
// short. On the goroutine of who reads, that becomes an error. On Badger's own
// (its compactions) nobody can catch it.

type guardedLog struct{ logStore }

func (g guardedLog) Blocks(ctx context.Context, log journal.LogName, from journal.Position, yield func(journal.Block) error) error {
	inside := false // of yield, whose panics are not Badger's
	return g.db.guard(&inside, func() error {
		return g.logStore.Blocks(ctx, log, from, func(b journal.Block) error {
			inside = true
			err := yield(b)
			inside = false
			return err
		})
	})
}

func (g guardedLog) Last(ctx context.Context, log journal.LogName) (b journal.Block, ok bool, err error) {
	err = g.db.guard(new(bool), func() error { b, ok, err = g.logStore.Last(ctx, log); return err })
	return b, ok, err
}

func (g guardedLog) Logs(ctx context.Context) (names []journal.LogName, err error) {
	err = g.db.guard(new(bool), func() error { names, err = g.logStore.Logs(ctx); return err })
	return names, err
}

// guard is as the function. A fault while a value is read leaves its file locked within Badger.
func (d *database) guard(inside *bool, read func() error) error {
	var fault bool
	err := guardFault(inside, &fault, read)
	if fault && d.values != nil {
		d.faulted.Store(true)
	}
	return err
}

// guard runs a read. A panic while it is not inside the caller's own code is damage.
func guard(inside *bool, read func() error) error { return guardFault(inside, new(bool), read) }

// guardFault says also whether it was a fault of memory that is a map of a file.
func guardFault(inside, fault *bool, read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if *inside {
			return
		}
		if r := recover(); r != nil {
			_, *fault = r.(interface{ Addr() uintptr }) // see debug.SetPanicOnFault
			text, _, _ := strings.Cut(strings.TrimSpace(fmt.Sprint(r)), "\n")
			err = &journal.Error{Op: "read", Kind: journal.KindCorrupt, Detail: "a block of a table is damaged: " + text}
		}
	}()
	return read()
}
