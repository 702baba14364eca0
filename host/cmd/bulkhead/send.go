package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// sendCmd sends one command and prints its reply.
type sendCmd struct {
	Entity  entityArg     `arg:"" help:"The entity, as service/key."`
	Type    typeArg       `arg:"" help:"Name of the command."`
	Data    string        `arg:"" optional:"" help:"Data as JSON; - reads it from standard input. Default: none."`
	ID      string        `name:"id" env:"-" placeholder:"ID" help:"Id of the command. Sending the same command with the same id again is safe and returns the first answer. Default: a new id."`
	Version *uint64       `name:"expect-version" env:"-" placeholder:"N" help:"Refuse the command unless the entity is at this version."`
	Timeout time.Duration `default:"30s" help:"How long to wait for the answer."`
	Retries int           `default:"3" placeholder:"N" help:"How often to retry, with the same id, when there is no answer or the host is overloaded. Default 3."`
	Meta    []metaArg     `name:"meta" sep:"none" env:"-" placeholder:"NAME=VALUE" help:"Metadata, which the host records with the command and its events. May be repeated with other names."`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *sendCmd) Run(e *env) error {
	meta, err := metadata(c.Meta)
	if err != nil {
		return err
	}
	data, err := readData(e, c.Data)
	if err != nil {
		return err
	}
	cmd := service.Command{
		Service: c.Entity.service, Key: c.Entity.key, Type: service.Type(c.Type),
		ID: service.CommandID(c.ID), Data: data, Metadata: meta,
	}
	if c.ID == "" {
		cmd.ID = service.CommandID(rand.Text())
	} else if cmd.ID, err = service.ParseCommandID(c.ID); err != nil {
		return err
	}
	if c.Version != nil {
		v := service.Version(*c.Version)
		cmd.Expected = &v
	}
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, c.Timeout)
	defer cancel()
	reply, err := sendUntilKnown(ctx, cl, cmd, c.Retries)
	err = explainData(err, data)
	if service.KindOf(err) == service.KindUnknown && !e.json {
		fmt.Fprintf(e.err, "The command may have been carried out. Send it again with --id %s to find out.\n", cmd.ID)
	}
	if err != nil {
		return err
	}
	text := api.ReplyText(nil, &reply)
	e.print(json.RawMessage(text.Append(nil)), func(w io.Writer) {
		if len(reply.Data) > 0 {
			e.body(w, reply.Data)
		}
		note := ""
		if reply.Repeated {
			note = ", carried out before"
		}
		fmt.Fprintf(e.err, "version %d, position %d, id %s%s\n", reply.Version, reply.Position,
			safetext.Text(string(reply.CommandID)), note)
	})
	return nil
}

// commander is the part of a client that sending needs.
type commander interface {
	Send(ctx context.Context, c service.Command) (service.Reply, error)
}

// sendUntilKnown sends a command again, under its id, while its outcome is unknown or it was refused for the
// moment. That is safe, because the host recognises ids.
func sendUntilKnown(ctx context.Context, cl commander, c service.Command, retries int) (service.Reply, error) {
	lost := false // the answer of an earlier attempt was lost
	for try := 0; ; try++ {
		reply, err := cl.Send(ctx, c)
		kind := service.KindOf(err)
		lost = lost || kind == service.KindUnknown
		again := kind == service.KindUnknown || kind == service.KindOverloaded || kind == service.KindUnavailable
		if err == nil || !again || try >= retries ||
			!lifecycle.Sleep(ctx, sendWaits.Asked(try+1, service.RetryAfterOf(err))) {
			if lost && (again || kind == service.KindFull) && kind != service.KindUnknown {
				// The refusal of a later attempt says nothing about the earlier one.
				err = &service.Error{Kind: service.KindUnknown, Message: "the answer to an earlier try was lost, and " +
					"then", Err: err}
			}
			return reply, err
		}
	}
}

// sendWaits are the waits before a command is sent again.
var sendWaits = lifecycle.Backoff{First: 100 * time.Millisecond, Max: 3200 * time.Millisecond}

// explainData says what is wrong with data that a service refused because it is not JSON. The cause is
// usually a mistake with quotes.
func explainData(err error, data []byte) error {
	if service.KindOf(err) != service.KindUnsupported {
		return err
	}
	if wrong := service.CheckJSON("the data", data); wrong != nil {
		return wrong
	}
	return err
}

// readData reads the data argument of a command or query.
func readData(e *env, arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	data, err := io.ReadAll(e.in)
	if err == nil && len(bytes.TrimSpace(data)) == 0 {
		err = usageError{errors.New("there is no data on standard input; to send none, leave the - out")}
	}
	return data, err
}

// metaArg is a pair of metadata.
type metaArg struct{ name, value string }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *metaArg) UnmarshalText(text []byte) error {
	name, value, ok := strings.Cut(string(text), "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not of the form NAME=VALUE", text)
	}
	m.name, m.value = name, value
	return nil
}

// metadata sorts pairs by name, so that the same flags give the same metadata.
func metadata(pairs []metaArg) (abi.Metadata, error) {
	var m abi.Metadata
	slices.SortFunc(pairs, func(a, b metaArg) int { return strings.Compare(a.name, b.name) })
	for i, pair := range pairs {
		if i > 0 && pair.name == pairs[i-1].name {
			return nil, usageError{fmt.Errorf("--meta gives %s twice", pair.name)}
		}
		m = m.AppendPair(pair.name, pair.value)
	}
	return m, nil
}
