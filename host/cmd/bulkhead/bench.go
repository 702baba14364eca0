package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/loadgen"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// benchCmd measures a new host in this process, with a bank.
type benchCmd struct {
	Module      string        `default:"build/guests/bank.wasm" type:"existingfile" placeholder:"FILE" help:"Module of the bank. Default ${default}, which make guests builds."`
	Data        string        `type:"path" env:"-" placeholder:"DIR" help:"Directory for the journal; the benchmark measures its disk. Default: a temporary directory, which is removed at the end."`
	Accounts    int           `default:"100000" placeholder:"N" help:"Number of accounts in the bank. Default ${default}."`
	Alpha       []float64     `default:"0,1.5" placeholder:"A" help:"Exponents of the Zipf distribution that chooses the accounts; 0 is uniform. Default ${default}."`
	Way         []string      `enum:"process,http,websocket" default:"process,http,websocket" placeholder:"WAY" help:"How commands reach the host: process, http, websocket. Default ${default}."`
	Clients     int           `default:"256" placeholder:"N" help:"Number of clients. Each waits for its answer before it sends again. Default ${default}."`
	Connections int           `default:"16" placeholder:"N" help:"Number of WebSocket connections that the clients share. Default ${default}."`
	Duration    time.Duration `default:"5s" placeholder:"TIME" help:"Duration of each load. Default ${default}."`
	Commands    int           `placeholder:"N" help:"Maximum number of commands of each load. It ends earlier if they are sent before --duration is over."`
	Shards      int           `placeholder:"N" help:"Number of shards of the bank. Default 2."`
	Seed        uint64        `default:"1" placeholder:"N" help:"Seed of the random choices. The same seed sends the same commands. Default ${default}."`
	Profile     string        `type:"path" env:"-" placeholder:"FILE" help:"Write a CPU profile of the whole run to this file."`
	Group       bool          `name:"group-commit" default:"true" negatable:"" help:"Also compare group commit with one sync per command, through the host and on the journal alone."`
	Limits      limitFlags    `embed:"" prefix:"limit-" group:"Limits of the bank"`
}

// benchReport has everything that was measured and checked.
type benchReport struct {
	Version    versionInfo    `json:"program"`
	CPUs       int            `json:"cpus"`
	Opened     benchRun       `json:"opened"` // accounts opened, each with a first deposit
	Runs       []benchRun     `json:"runs"`
	Group      *groupCompared `json:"group_commit,omitempty"`
	Audit      loadgen.Audit  `json:"audit"`
	Journal    verify.Report  `json:"journal"`
	VerifyTime time.Duration  `json:"verify_ns"`
}

// benchRun is one load, and what the journal did meanwhile.
type benchRun struct {
	Way string `json:"way"`
	loadgen.Result
	Syncs         uint64        `json:"syncs"`
	EventsPerSync float64       `json:"events_per_sync"`
	LargestGroup  int           `json:"largest_group"` // since the host started
	MeanSync      time.Duration `json:"mean_sync_ns"`
}

// check reports everything that is wrong with the flags before anything is measured.
func (c *benchCmd) check() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for _, f := range []struct {
		name       string
		value, max int
	}{{"accounts", c.Accounts, 100_000_000}, {"clients", c.Clients, 1 << 16}, {"connections", c.Connections, 1 << 12}} {
		wrong(f.value < 1 || f.value > f.max, "--%s is %d; it may be 1 to %d", f.name, f.value, f.max)
	}
	wrong(c.Duration <= 0, "--duration is %s; it must be more than 0", c.Duration)
	wrong(c.Commands < 0, "--commands is %d; it may be 0, which is no bound, or more", c.Commands)
	for _, alpha := range c.Alpha {
		wrong(!(alpha >= 0 && alpha <= 100), "--alpha is %g; it may be 0 to 100", alpha)
	}
	return errors.Join(errs...)
}

func (c *benchCmd) Run(e *env) (err error) {
	if err := c.check(); err != nil {
		return usageError{err}
	}
	module, err := os.ReadFile(c.Module)
	if err != nil {
		return err
	}
	if c.Profile != "" {
		f, err := os.Create(c.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	dir := c.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "bulkhead-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	b := &bench{benchCmd: c, env: e, module: module, bar: e.progress(), books: loadgen.NewBooks(c.Accounts)}
	report := benchReport{Version: thisVersion(), CPUs: runtime.GOMAXPROCS(0)}
	if err := b.loads(filepath.Join(dir, "bank"), &report); err != nil {
		return err
	}
	if c.Group {
		if report.Group, err = b.compare(dir); err != nil {
			return err
		}
	}
	b.bar.done()
	e.print(report, func(w io.Writer) { printBench(w, &report) })
	if !report.Audit.OK() || report.Journal.Found > 0 {
		return checkError{"what the bank has is not what its clients were told"}
	}
	return nil
}

// bench is one run of the command.
type bench struct {
	*benchCmd
	env    *env
	module []byte
	bar    *progress
	books  *loadgen.Books
}

// loads runs all loads on one host, then checks books and journal.
func (b *bench) loads(dir string, report *benchReport) error {
	ctx := b.env.ctx
	p, err := b.start(dir, commitlog.Options{})
	if err != nil {
		return err
	}
	defer p.Close()
	open := loadgen.Load{Accounts: b.Accounts, Clients: b.Clients, Seed: b.Seed, Run: "o" + nonce()}
	report.Opened, err = b.measure(p, "process", "opening accounts", open, loadgen.Open, b.books)
	if err != nil {
		return err
	}
	for i, alpha := range b.Alpha {
		for _, way := range b.Way {
			load := loadgen.Load{
				Accounts: b.Accounts, Alpha: alpha, Clients: b.Clients, Duration: b.Duration, Commands: b.Commands,
				Seed: b.Seed + uint64(i), Run: way[:1] + nonce(),
			}
			run, err := b.measure(p, way, fmt.Sprintf("%s, alpha %g", way, alpha), load, loadgen.Run, b.books)
			if err != nil {
				return err
			}
			report.Runs = append(report.Runs, run)
		}
	}
	b.bar.at("asking every account for its balance", 0, 0, countUnit)
	if report.Audit, err = b.books.Audit(ctx, "bank", p.host); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	offline := journalCmd{Data: dir}
	report.Journal, report.VerifyTime, err = offline.verify(b.env, 0)
	return err
}

// start opens a host on a free port with the bank in it.
func (b *bench) start(dir string, o commitlog.Options) (*program, error) {
	b.bar.at("starting", 0, 0, countUnit)
	quiet := slog.New(slog.DiscardHandler)
	p, err := startProgram(b.env.ctx, programOptions{host: host.Options{Dir: dir, Limits: b.Limits.limits(), Journal: o,
		Logger: quiet}, gateway: gateway.Options{Listen: "127.0.0.1:0", Logger: quiet}})
	if err != nil {
		return nil, err
	}
	_, err = p.host.Deploy(b.env.ctx, service.Deployment{Service: "bank", Module: b.module,
		Settings: service.Settings{Shards: b.Shards}})
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// nonce distinguishes the command ids of runs on the same directory.
func nonce() string { return strconv.FormatInt(time.Now().UnixNano(), 36) }

type loader func(context.Context, loadgen.Load, []loadgen.Sender, *loadgen.Books) (loadgen.Result, error)

// measure runs one load, and counts what the journal did meanwhile.
func (b *bench) measure(
	p *program, way, title string, load loadgen.Load, run loader, books *loadgen.Books,
) (benchRun, error) {
	senders, hangUp, err := b.senders(p, way)
	if err != nil {
		return benchRun{}, err
	}
	defer hangUp()
	load.Progress = func(done int) { b.bar.at(title, int64(done), 0, countUnit) }
	load.Progress(0)
	before := p.host.Stats()
	r, err := run(b.env.ctx, load, senders, books)
	if err != nil {
		return benchRun{}, fmt.Errorf("%s: %w", title, err)
	}
	return counted(way, r, before, p.host.Stats()), nil
}

// counted adds what the journal did under a load.
func counted(way string, r loadgen.Result, before, after journal.Stats) benchRun {
	out := benchRun{Way: way, Result: r, Syncs: after.Syncs - before.Syncs, LargestGroup: after.LargestGroup}
	if out.Syncs > 0 {
		out.EventsPerSync = float64(after.Events-before.Events) / float64(out.Syncs)
		out.MeanSync = (after.SyncTime - before.SyncTime) / time.Duration(out.Syncs)
	}
	return out
}

// senders are the interfaces of the host: the Go API, HTTP over loopback, or some WebSocket connections over
// loopback.
func (b *bench) senders(p *program, way string) ([]loadgen.Sender, func(), error) {
	if way == "process" {
		return []loadgen.Sender{p.host}, func() {}, nil
	}
	c, err := client.New(client.Options{URL: "http://" + p.Address(), Connections: b.Clients})
	if err != nil {
		return nil, nil, err
	}
	if way == "http" {
		return []loadgen.Sender{c}, c.Close, nil
	}
	var senders []loadgen.Sender
	var streams []*client.Stream
	hangUp := func() {
		for _, s := range streams {
			_ = s.Close()
		}
		c.Close()
	}
	for range min(b.Connections, b.Clients) {
		s, err := c.Stream(b.env.ctx)
		if err != nil {
			hangUp()
			return nil, nil, err
		}
		streams, senders = append(streams, s), append(senders, s)
	}
	return senders, hangUp, nil
}

func printBench(w io.Writer, r *benchReport) {
	fmt.Fprintf(w, "bulkhead %s, %s, %s, %d CPUs; load and host share them\n\n", r.Version.Version, r.Version.Go,
		r.Version.Platform, r.CPUs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "way\talpha\tclients\tcommands\trejected\tcommands/s\tp50 ms\tp99 ms\tp99.9 "+
		"ms\tsyncs\tevents/sync\tms/sync\t")
	row := func(name string, b *benchRun) {
		fmt.Fprintf(t, "%s\t%g\t%d\t%d\t%d\t%.0f\t%s\t%s\t%s\t%d\t%.1f\t%s\t\n", name, b.Alpha, b.Clients, b.Committed+
			b.Rejected, b.Rejected, b.PerSecond,
			ms(b.P50), ms(b.P99), ms(b.P999), b.Syncs, b.EventsPerSync, ms(b.MeanSync))
	}
	row("open", &r.Opened)
	for i := range r.Runs {
		row(r.Runs[i].Way, &r.Runs[i])
	}
	if g := r.Group; g != nil {
		row("host, group commit", &g.HostWith)
		row("host, one sync each", &g.HostWithout)
		row("journal, group commit", &g.JournalWith)
		row("journal, one sync each", &g.JournalWithout)
	}
	t.Flush()
	fmt.Fprintln(w)
	if g := r.Group; g != nil {
		fmt.Fprintf(w, "group commit at %d clients: %.1f times the rate of one sync a command through the host, %.1f "+
			"times on the journal alone\n",
			g.HostWith.Clients, g.HostRatio, g.JournalRatio)
	}
	verdict := "as clients were told"
	if !r.Audit.OK() {
		verdict = "NOT what clients were told"
	}
	fmt.Fprintf(w, "balances: %d accounts with %d in all, %s\n", r.Audit.Accounts, r.Audit.Found, verdict)
	for _, wrong := range r.Audit.Wrong {
		fmt.Fprintf(w, "  %s\n", safetext.Text(fmt.Sprint(wrong)))
	}
	printVerification(w, &r.Journal, r.VerifyTime)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1000) }

var _ loadgen.Sender = (*client.Client)(nil)
var _ loadgen.Sender = (*client.Stream)(nil)
var _ loadgen.Querier = (*client.Client)(nil)
