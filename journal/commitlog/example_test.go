package commitlog_test

import (
	"context"
	"fmt"
	"log"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// A commit has one command and its events. Its receipt comes when they are on disk.
func Example() {
	ctx := context.Background()
	// A journal in memory. On disk its storage is that of package storage.
	j, err := commitlog.Open(ctx, journaltest.NewMemory().Storage(), commitlog.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer j.Close(ctx)

	durable := make(chan error)
	commit := &journal.Commit{
		Log:     "bank",
		Command: journal.Command{ID: "order-7", Type: "deposit", Key: "alice"},
		Events:  []journal.NewEvent{{Type: "deposited", Data: []byte(`{"amount":10}`)}},
	}
	err = j.Append(ctx, commit, func(_ journal.Receipt, err error) { durable <- err })
	if err != nil {
		log.Fatal(err)
	}
	if err := <-durable; err != nil {
		log.Fatal(err)
	}

	err = j.Read(ctx, "bank", 0, 10, func(e *journal.Event) error {
		fmt.Printf("position %d: %s at version %d: %s %s\n", e.Position, e.Key, e.Version, e.Type, e.Data)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: position 1: alice at version 1: deposited {"amount":10}
}
