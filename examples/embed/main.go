// Command embed runs a Bulkhead host inside its own process: it deploys a bank, sends two commands, asks for the
// balance and reads the events.
//
//	make guests && go run ./examples/embed build/guests/bank.wasm
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func main() {
	bank, err := os.ReadFile(os.Args[len(os.Args)-1])
	if err == nil {
		err = run(context.Background(), os.Stdout, host.Options{Dir: "build/embed"}, bank)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, options host.Options, bank []byte) error {
	h, err := host.Open(ctx, options)
	if err != nil {
		return err
	}
	defer h.Close(ctx) // the error does not matter: what was sent is already on disk
	if _, err := h.Deploy(ctx, service.Deployment{Service: "bank", Module: bank}); err != nil {
		return err
	}
	for _, c := range []service.Command{
		{ID: "1", Service: "bank", Key: "alice", Type: "open", Data: []byte(`{"owner":"Alice"}`)},
		{ID: "2", Service: "bank", Key: "alice", Type: "deposit", Data: []byte(`{"amount":100}`)},
	} {
		if _, err := h.Send(ctx, c); err != nil { // nil: on disk, perhaps since an earlier run
			return err
		}
	}
	balance, err := h.Query(ctx, service.Query{Service: "bank", Key: "alice", Type: "balance"})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "balance %s at version %d\n", balance.Data, balance.Version)
	stream, err := h.Subscribe(ctx, service.Selection{Service: "bank"})
	if err != nil {
		return err
	}
	events, err := stream.Next(ctx, 10) // waits until there is an event
	for _, e := range events {
		fmt.Fprintf(out, "%d %s %s\n", e.Position, e.Type, e.Data)
	}
	return err
}
