package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// servicesCmd lists, shows, describes or deletes the services of a host.
type servicesCmd struct {
	List    servicesListCmd    `cmd:"" default:"1" help:"List the services."`
	Show    servicesShowCmd    `cmd:"" help:"Show the state of one service, and the fields of its commands, queries and events."`
	OpenAPI servicesOpenAPICmd `cmd:"" name:"openapi" help:"Print the OpenAPI document of one service: its commands, queries and events."`
	Delete  servicesDeleteCmd  `cmd:"" help:"Stop a service. Its log can still be read, and it can be deployed again. A stopped service without events is removed."`

	Remote remoteFlags `embed:"" group:"Host"`
}

type servicesListCmd struct {
	Manifest bool `help:"With --json, also print the manifest of each service, which can be large."`
}

func (c *servicesListCmd) Run(e *env, all *servicesCmd) error {
	cl, err := all.Remote.connect(e)
	if err != nil {
		return err
	}
	list, err := cl.Services(e.ctx, c.Manifest)
	if err != nil {
		return err
	}
	e.print(servicesOf(list), func(w io.Writer) {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "SERVICE\tSTATE\tMODULE\tSHARDS\tEVENTS\tCOMMITTED\tREJECTED\tFAILED")
		for _, s := range list {
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", safetext.Text(string(s.Spec.Service)), stateCell(&s),
				shortDigest(s.Spec.Module), len(s.Shards), s.Head,
				s.Counters.Committed, s.Counters.Rejected, s.Counters.Failed)
		}
		table.Flush()
	})
	return nil
}

// servicesOf is the list as --json prints it.
func servicesOf(list []service.Status) api.Services {
	all := api.Services{Services: make([]api.Service, len(list))}
	for i := range list {
		all.Services[i] = api.ServiceOf(list[i])
	}
	return all
}

// stateCell is the state of a service, with the failed attempts to start it.
func stateCell(s *service.Status) string {
	switch {
	case s.Failed == 0:
		return string(s.State)
	case s.NextAttempt.IsZero():
		return fmt.Sprintf("%s (attempt %d)", s.State, s.Failed+1)
	}
	return fmt.Sprintf("%s (attempt %d at %s)", s.State, s.Failed+1, s.NextAttempt.Format(time.TimeOnly))
}

// shortDigest is enough of a digest to tell modules apart.
func shortDigest(d service.Digest) string { return d.String()[:len("sha256:")+12] }

type servicesShowCmd struct {
	Service nameArg `arg:"" help:"The service."`
}

func (c *servicesShowCmd) Run(e *env, all *servicesCmd) error {
	cl, err := all.Remote.connect(e)
	if err != nil {
		return err
	}
	s, err := cl.Service(e.ctx, service.Name(c.Service))
	if err != nil {
		return err
	}
	types, err := cl.EventTypes(e.ctx, service.Name(c.Service))
	if err != nil { // the service's status may explain it
		e.warn("the types of its events cannot be read: " + err.Error())
	}
	e.print(shownService{api.ServiceOf(s), types}, func(w io.Writer) { printService(w, &s, types) })
	return nil
}

// shownService is a service with the types of the events in its log, as --json prints it. They are
// null if they could not be read.
type shownService struct {
	api.Service
	EventTypes []journal.EventType `json:"event_types"`
}

func printService(w io.Writer, s *service.Status, types []journal.EventType) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", name, safetext.Text(fmt.Sprintf(format, args...)))
	}
	row("service", "%s", s.Spec.Service)
	row("state", "%s since %s", s.State, s.Since.Format(time.RFC3339))
	printAttempts(row, "", &s.Attempts)
	row("module", "%s", s.Spec.Module)
	row("position", "%d", s.Head)
	row("disk", "%s of %s", bytesUnit(s.LogBytes), bytesUnit(s.Spec.Limits.WithDefaults().DiskBytes))
	if m := &s.Manifest; m.ABI != 0 {
		row("version", "%s", cmp.Or(m.Version, "not said"))
		row("made with", "%s", cmp.Or(m.SDK, "not said"))
		for _, c := range m.Commands {
			row("command", "%s", withSchema(c.Name, c.Input))
		}
		for _, q := range m.Queries {
			row("query", "%s", withSchema(q.Name, q.Input))
		}
		for _, ev := range m.Events {
			row("event", "%s", withSchema(eventName(&ev), ev.Schema))
		}
	}
	for _, t := range types {
		row("in the log", "%s, from position %d to %d", typeCount(&t), t.First, t.Last)
	}
	if s.Tariff > 0 {
		row("tariff", "%d", s.Tariff)
	}
	printLimits(row, &s.Spec.Limits)
	idle := 0
	for i, sh := range s.Shards {
		if sh.State == service.StateIdle {
			idle++
			continue
		}
		row("shard", "%d: %s, %d queued, %d entities, %s of memory", i, sh.State, sh.Queued, sh.Resident,
			bytesUnit(sh.MemoryBytes))
		printAttempts(row, fmt.Sprintf("shard %d: ", i), &sh.Attempts)
	}
	if idle > 0 {
		row("shards", "%d more, which have had nothing to do and have no sandbox", idle)
	}
	if s.SandboxBytes > 0 {
		row("memory", "%s of the host's sandbox memory, with code of %s, an image of %s and tables of %s",
			bytesUnit(s.SandboxBytes), bytesUnit(s.CodeBytes), bytesUnit(s.ImageBytes), bytesUnit(s.TableBytes))
	}
	printFaults(row, &s.Faults)
	c := s.Counters
	row("counters", "%d committed, %d events, %d rejected, %d failed, %d overloaded, %d repeated, %d unknown, %d "+
		"queries, %d hydrated, %d resets, %d recycled, %d fuel",
		c.Committed, c.Events, c.Rejected, c.Failed, c.Overloaded, c.Repeated, c.Unknown, c.Queries, c.Hydrated,
		c.Resets, c.Recycled, c.Fuel)
	row("log", "%d lines dropped, %s", c.LogLinesDropped, bytesUnit(int64(c.LogBytesDropped)))
	row("snapshots", "%s, %d taken, %d used, %d refused", every(s.Spec.Settings.SnapshotEvery), c.SnapshotsTaken,
		c.SnapshotsUsed, c.SnapshotsRefused)
	printFields(w, &s.Manifest)
}

// eventName is the name of a type of event, and for an old one, as what it is read.
func eventName(e *abi.EventType) string {
	if e.UpcastTo == "" {
		return e.Name
	}
	return e.Name + " (read as " + e.UpcastTo + ")"
}

// printLimits prints the limits; related ones share a line.
func printLimits(row func(name, format string, args ...any), l *service.Limits) {
	row("limits", "a sandbox has %s of memory, and is replaced when %d%% of it are used; tables of %d elements",
		size(l.MemoryBytes), l.MemoryWatermark, l.TableElements)
	row("", "a call takes %s and %d of fuel (%d an event when an entity comes back), with %s of stack", l.CallTime,
		l.Fuel, l.EventFuel, size(l.StackBytes))
	row("", "a command has %s of data, %d events, an answer of %s and %s of log", size(l.CommandBytes), l.Events,
		size(l.OutcomeBytes), size(l.LogBytes))
	row("", "in a shard wait %d commands or %s, and %d entities stay in memory", l.MailboxCommands,
		size(l.MailboxBytes), l.ResidentEntities)
	row("", "a module has %s and compiles in %s with %s", size(l.ModuleBytes), l.CompileTime, size(l.CompileBytes))
	row("", "the log has %s on disk and grows by %s a second", size(l.DiskBytes), size(l.DiskRate))
}

// printFaults prints the entities over which the module has failed, if there are any.
func printFaults(row func(name, format string, args ...any), f *service.EntityFaults) {
	if f.IsZero() {
		return
	}
	row("faults", "%d entities that the module cannot hydrate, or whose states it cannot encode", f.Count)
	for i := range f.Latest {
		x := &f.Latest[i]
		next := ""
		if !x.NextAttempt.IsZero() {
			next = ", next attempt at " + x.NextAttempt.Format(time.RFC3339)
		}
		row("fault", "%s: cannot %s since %s, %d attempts%s: %s", x.Key, x.Cannot, x.Since.Format(time.RFC3339),
			x.Failed, next, x.Problem)
	}
}

// printAttempts prints the failed attempts to start something, if there are any.
func printAttempts(row func(name, format string, args ...any), what string, a *service.Attempts) {
	if a.Problem != "" {
		row("problem", "%s%s", what, a.Problem)
	}
	switch {
	case a.Failed > 0 && a.NextAttempt.IsZero():
		row("attempts", "%s%d failed, the next one is under way", what, a.Failed)
	case a.Failed > 0:
		row("attempts", "%s%d failed, the next one is due at %s", what, a.Failed, a.NextAttempt.Format(time.RFC3339))
	}
}

// every says when snapshots are taken.
func every(events int) string {
	if events < 0 {
		return "none are taken"
	}
	return fmt.Sprintf("every %d events", events)
}

type servicesOpenAPICmd struct {
	Service nameArg `arg:"" help:"The service."`
}

func (c *servicesOpenAPICmd) Run(e *env, all *servicesCmd) error {
	cl, err := all.Remote.connect(e)
	if err != nil {
		return err
	}
	document, err := cl.OpenAPI(e.ctx, service.Name(c.Service))
	if err != nil {
		return err
	}
	e.print(json.RawMessage(document), func(w io.Writer) { fmt.Fprintf(w, "%s\n", indented(safetext.JSON(document))) })
	return nil
}

type servicesDeleteCmd struct {
	Service nameArg `arg:"" help:"The service."`
}

func (c *servicesDeleteCmd) Run(e *env, all *servicesCmd) error {
	cl, err := all.Remote.connect(e)
	if err != nil {
		return err
	}
	if err := cl.Delete(e.ctx, service.Name(c.Service)); err != nil {
		return err
	}
	e.print(map[string]any{"deleted": c.Service}, func(w io.Writer) {
		if _, err := cl.Service(e.ctx, service.Name(c.Service)); service.KindOf(err) == service.KindNotFound {
			fmt.Fprintf(w, "%s is gone; it had no event\n", c.Service)
			return
		}
		fmt.Fprintf(w, "%s is stopped; its log stays\n", c.Service)
	})
	return nil
}
