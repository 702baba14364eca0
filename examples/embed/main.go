// Command embed runs a Bulkhead host inside a program of its own: it deploys the
// module that its argument names, sends two commands and shows the events.
//
//	make guests && go run ./examples/embed build/guests/bank.wasm
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	module, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if err := run(context.Background(), os.Stdout, dir, module); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, dir string, module []byte) (err error) {
	h, err := host.Open(ctx, host.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close(ctx)) }()
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
		fmt.Fprintf(out, "%s: %s, on disk at position %d\n", c.Type, reply.Data, reply.Position)
	}
	return nil
}
