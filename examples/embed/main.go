// Command embed runs a Bulkhead host inside a program of its own: it deploys the
// module that its argument names, sends two commands and shows the events.
//
//	make guests && go run ./examples/embed build/guests/bank.wasm
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: embed bank.wasm")
	}
	dir, err := os.MkdirTemp("", "bulkhead-embed-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := run(context.Background(), dir, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dir, file string) (err error) {
	module, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	h, err := host.Open(ctx, host.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer h.Close(ctx)
	if _, err := h.Deploy(ctx, host.Deployment{Service: "bank", Module: module}); err != nil {
		return err
	}
	for _, c := range []service.Command{
		{Service: "bank", Key: "alice", Type: "open", Data: []byte(`{"owner":"Alice"}`)},
		{Service: "bank", Key: "alice", Type: "deposit", Data: []byte(`{"amount":100}`)},
	} {
		reply, err := h.Send(ctx, c)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s, on disk at position %d\n", c.Type, reply.Data, reply.Position)
	}
	return nil
}
