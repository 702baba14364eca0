package host_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A program that embeds a host deploys a service, sends it commands, and reads its events.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "bulkhead")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	h, err := host.Open(ctx, host.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close(ctx)

	module := testguest.Counter("tally") // usually the content of a file
	if _, err := h.Deploy(ctx, service.Deployment{Service: "tally", Module: module}); err != nil {
		log.Fatal(err)
	}
	// The reply comes when the command's events are on disk. Sending the same id again is safe: it has no
	// effect and returns the first reply.
	for range 2 {
		reply, err := h.Send(ctx, service.Command{ID: "order-7", Service: "tally", Key: "apples", Type: "add"})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("version %d, reply %s, repeated %v\n", reply.Version, reply.Data, reply.Repeated)
	}
	// Output:
	// version 1, reply 1, repeated false
	// version 1, reply 1, repeated true
}

// A subscriber reads events from anywhere in the log, and then waits for more.
func ExampleHost_Subscribe() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "bulkhead")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	h, err := host.Open(ctx, host.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close(ctx)
	if _, err := h.Deploy(ctx, service.Deployment{Service: "tally", Module: testguest.Counter("tally")}); err != nil {
		log.Fatal(err)
	}
	for _, key := range []service.Key{"apples", "pears", "apples"} {
		if _, err := h.Send(ctx, service.Command{Service: "tally", Key: key, Type: "add"}); err != nil {
			log.Fatal(err)
		}
	}

	subscriber, err := h.Subscribe(ctx, service.Selection{Service: "tally"})
	if err != nil {
		log.Fatal(err)
	}
	for subscriber.Position() < 3 {
		events, err := subscriber.Next(ctx, 10)
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range events {
			fmt.Printf("position %d: %s, version %d\n", e.Position, e.Key, e.Version)
		}
	}
	// Output:
	// position 1: apples, version 1
	// position 2: pears, version 1
	// position 3: apples, version 2
}
