package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// queryCmd sends a query to an entity and prints the answer.
type queryCmd struct {
	Entity  entityArg     `arg:"" help:"The entity, as service/key."`
	Type    typeArg       `arg:"" help:"Name of the query."`
	Data    string        `arg:"" optional:"" help:"Data as JSON; - reads it from standard input. Default: none."`
	Timeout time.Duration `default:"30s" help:"How long to wait for the answer."`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *queryCmd) Run(e *env) error {
	data, err := readData(e, c.Data)
	if err != nil {
		return err
	}
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, c.Timeout)
	defer cancel()
	reply, err := cl.Query(ctx, service.Query{Service: c.Entity.service, Key: c.Entity.key, Type: service.Type(c.Type),
		Data: data})
	if err != nil {
		return explainData(err, data)
	}
	text := api.QueryReplyText(nil, &reply)
	e.print(json.RawMessage(text.Append(nil)), func(w io.Writer) {
		if len(reply.Data) > 0 {
			e.body(w, reply.Data)
		}
		fmt.Fprintf(e.err, "version %d\n", reply.Version)
	})
	return nil
}
