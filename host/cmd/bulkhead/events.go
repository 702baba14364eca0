package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// eventsCmd reads or follows a stream.
type eventsCmd struct {
	Of     string    `arg:"" name:"service[/key]" help:"A service, or one entity of it."`
	From   fromArg   `default:"start" env:"-" placeholder:"PLACE" help:"Where to begin: start, end, after the event with this id, at a position such as 100, at a time such as 2026-01-31T08:00:00Z, or at an age such as -1h or -7d. Default ${default}."`
	Type   []typeArg `placeholder:"TYPE" env:"-" help:"Show only events of this type. May be repeated."`
	Limit  uint      `env:"-" placeholder:"N" help:"Stop after this number of events. Default: no limit."`
	Follow bool      `short:"f" help:"Wait for new events at the end, also across restarts of the host."`

	Remote remoteFlags `embed:"" group:"Host"`
}

// fromArg is where to begin to read a log. An age begins with a hyphen, like a flag.
type fromArg struct{ service.From }

// Decode implements kong.MapperValue.
func (a *fromArg) Decode(ctx *kong.DecodeContext) error {
	token := ctx.Scan.Pop()
	text := token.String()
	if token.IsEOL() || text == "" || strings.HasPrefix(text, "--") {
		return errors.New("a place is missing")
	}
	var err error
	a.From, err = service.ParseFrom(text)
	return err
}

// errEnough ends following when the limit is reached.
var errEnough = errors.New("enough events")

func (c *eventsCmd) Run(e *env) error {
	s := service.Selection{From: c.From.From}
	name, key, isEntity := strings.Cut(c.Of, "/")
	var err error
	if s.Service, err = service.ParseName(name); err != nil {
		return err
	}
	if isEntity {
		k, err := service.ParseKey(key)
		if err != nil {
			return err
		}
		s.Keys = []service.Key{k}
	}
	for _, t := range c.Type {
		s.Types = append(s.Types, service.Type(t))
	}
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	left := c.Limit
	each := func(ev client.Event) error {
		if err := c.show(e, &ev); err != nil {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	}
	if c.Follow {
		err = cl.Follow(e.ctx, s, each)
		if e.ctx.Err() != nil {
			return nil // interrupting is the usual end of following
		}
	} else {
		err = readAll(e, cl, s, each)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// readAll reads all pages until the end of the log.
func readAll(e *env, cl *client.Client, s service.Selection, each func(client.Event) error) error {
	for {
		page, err := cl.Events(e.ctx, s, 0)
		if err != nil {
			return err
		}
		for _, ev := range page.Events {
			if err := each(ev); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
		s.From = service.AfterCursor(page.Next)
	}
}

// show prints an event in one line, for people or as JSON in the native form.
func (c *eventsCmd) show(e *env, ev *client.Event) error {
	if e.json {
		return writeJSON(e.out, ev, false)
	}
	_, err := fmt.Fprintf(e.out, "%d  %s  %s  v%d  %s  %s\n", ev.Position,
		ev.Time.Format("2006-01-02T15:04:05.000Z07:00"), safetext.Text(string(ev.Key)), ev.Version,
		safetext.Text(string(ev.Type)), safetext.Body(ev.Data))
	return err
}
