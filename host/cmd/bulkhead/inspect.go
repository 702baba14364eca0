package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// inspectCmd reports what a module is, without a host.
type inspectCmd struct {
	Module string     `arg:"" type:"existingfile" help:"The module, a .wasm file."`
	All    bool       `help:"Show all imports, exports and limits, not only those that matter most."`
	Limits limitFlags `embed:"" prefix:"limit-" group:"Limits that the module is held to"`
}

// inspected is what inspect prints with --json.
type inspected struct {
	*service.Inspection
	Manifest *api.Manifest `json:"manifest,omitempty"`
	Accepted bool          `json:"accepted"`
}

func (c *inspectCmd) Run(e *env) error {
	module, err := os.ReadFile(c.Module)
	if err != nil {
		return err
	}
	compiler, err := compiler()
	if err != nil {
		return err
	}
	bar := e.progress()
	defer bar.done()
	i, err := host.Inspect(e.ctx, module, host.InspectOptions{
		Limits: c.Limits.limits(), Compiler: compiler,
		Progress: func(p service.Progress) { bar.at(p.Stage, p.Done, p.Total, bytesUnit) },
	})
	bar.done()
	if err != nil {
		return err
	}
	out := inspected{Inspection: i, Accepted: len(i.Problems) == 0}
	if i.Manifest != nil {
		m := api.Manifest(*i.Manifest)
		out.Manifest = &m
	}
	e.print(out, func(w io.Writer) { c.print(w, i) })
	if !out.Accepted {
		return checkError{fmt.Sprintf("%s would be refused: %d of its properties are against the rules",
			relative(c.Module), len(i.Problems))}
	}
	return nil
}

func (c *inspectCmd) print(w io.Writer, i *service.Inspection) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", safetext.Text(name), safetext.Text(strings.TrimSpace(fmt.Sprintf(format, args...))))
	}
	row("module", "%s, %s", i.Digest, bytesUnit(i.Size))
	printSelf(row, i)
	for _, s := range i.Sections {
		row(s.Name, "%s", bytesUnit(int64(s.Bytes)))
	}
	if f := i.Functions; f != nil {
		row("functions", "%d, %s; the largest has %s %s", f.Count, bytesUnit(f.Bytes), bytesUnit(int64(f.Largest)),
			f.Name)
	}
	if d := i.Data; d != nil {
		row("data", "%s in %d segments", bytesUnit(d.Bytes), d.Segments)
	}
	if m := i.Memory; m != nil {
		row("memory", "%s at start%s", bytesUnit(int64(m.Min)), atMost(m.Max, bytesUnit))
	}
	for _, x := range i.Tables {
		row("table", "%d elements%s", x.Min, atMost(x.Max, countUnit))
	}
	for _, x := range i.Imports {
		if c.All || !x.Offered {
			offered := ""
			if !x.Offered {
				offered = " (not offered)"
			}
			row("import", "%s.%s %s %s%s", plain(x.Module), plain(x.Name), x.Kind, x.Type, offered)
		}
	}
	if n := len(i.Imports); !c.All && n > 0 {
		row("imports", "%d", n)
	}
	for _, x := range i.Exports {
		row("export", "%s %s %s", plain(x.Name), x.Kind, x.Type)
	}
	if m := i.Metering; m != nil {
		row("rewritten", "%s, tariff %d", bytesUnit(int64(m.Bytes)), m.Tariff)
	}
	printStart(row, i)
	for _, l := range i.Limits {
		if c.All || l.Value > l.Limit || l.Value > l.Limit/2 {
			row("limit", "%d %s of %d", l.Value, l.Name, l.Limit)
		}
	}
	for _, p := range i.Problems {
		row("PROBLEM", "%s", p)
	}
}

// printSelf prints the module's manifest.
func printSelf(row func(name, format string, args ...any), i *service.Inspection) {
	m := i.Manifest
	if m == nil {
		return
	}
	row("service", "%s %s, ABI %d, %s", m.Service, plain(m.Version), m.ABI, plain(m.SDK))
	var commands, queries, events []string
	for _, c := range m.Commands {
		commands = append(commands, c.Name)
	}
	for _, q := range m.Queries {
		queries = append(queries, q.Name)
	}
	for _, e := range m.Events {
		events = append(events, eventName(&e))
	}
	for _, list := range []struct {
		name  string
		names []string
	}{{"commands", commands}, {"queries", queries}, {"events", events},
		{"capabilities", slices.Clone(m.Capabilities)}} {
		if len(list.names) > 0 {
			row(list.name, "%s", strings.Join(list.names, ", "))
		}
	}
}

// printStart prints what the module needs to start.
func printStart(row func(name, format string, args ...any), i *service.Inspection) {
	s := i.Start
	switch {
	case s == nil:
	case s.ImageBytes > 0:
		row("image", "%s; sandboxes begin as copies of it", bytesUnit(s.ImageBytes))
		row("start", "%d fuel, once", s.Fuel)
	default:
		row("image", "none: %s", i.Metering.Why)
		row("start", "%d fuel and %s of memory, for each sandbox", s.Fuel, bytesUnit(s.MemoryBytes))
	}
}

func atMost(limit *uint64, unit func(int64) string) string {
	if limit == nil {
		return ""
	}
	return ", at most " + unit(int64(*limit))
}

// plain formats a name from the module: quoted if necessary, and cut if it is long.
func plain(name string) string {
	if len(name) > 80 {
		return strconv.Quote(name[:80]) + "…"
	}
	if safetext.Text(name) != name {
		return strconv.Quote(name)
	}
	return name
}
