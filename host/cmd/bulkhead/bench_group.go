package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/loadgen"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// groupCompared is the same load with and without group commit: on the whole host, where the guest takes its
// part of the time, and on the journal alone.
type groupCompared struct {
	HostWith       benchRun `json:"host_with"`
	HostWithout    benchRun `json:"host_without"`
	HostRatio      float64  `json:"host_ratio"`
	JournalWith    benchRun `json:"journal_with"`
	JournalWithout benchRun `json:"journal_without"`
	JournalRatio   float64  `json:"journal_ratio"`
}

// compare runs each load twice, the second time with one sync per command.
func (b *bench) compare(dir string) (*groupCompared, error) {
	var g groupCompared
	for i, out := range []*benchRun{&g.HostWith, &g.HostWithout, &g.JournalWith, &g.JournalWithout} {
		options := []commitlog.Options{{}, {MaxGroupCommits: 1}}[i%2]
		title := []string{"host, group commit", "host, one sync a command", "journal, group commit",
			"journal, one sync a command"}[i]
		run := b.onHost
		if i >= 2 {
			run = b.onJournal
		}
		var err error
		if *out, err = run(filepath.Join(dir, "group-"+strconv.Itoa(i)), title, options); err != nil {
			return nil, fmt.Errorf("%s: %w", title, err)
		}
	}
	g.HostRatio = ratio(&g.HostWith, &g.HostWithout)
	g.JournalRatio = ratio(&g.JournalWith, &g.JournalWithout)
	return &g, nil
}

func ratio(with, without *benchRun) float64 {
	if without.PerSecond == 0 {
		return 0
	}
	return with.PerSecond / without.PerSecond
}

// onHost loads a small bank on a new host.
func (b *bench) onHost(dir, title string, o commitlog.Options) (benchRun, error) {
	const accounts = 1000
	p, err := b.start(dir, o)
	if err != nil {
		return benchRun{}, err
	}
	defer p.Close()
	books := loadgen.NewBooks(accounts)
	load := loadgen.Load{Accounts: accounts, Clients: b.Clients, Seed: b.Seed, Run: "open"}
	if _, err := b.measure(p, "process", title+": opening accounts", load, loadgen.Open, books); err != nil {
		return benchRun{}, err
	}
	load.Run, load.Duration = "load", b.Duration
	r, err := b.measure(p, "process", title, load, loadgen.Run, books)
	return r, errors.Join(err, p.Close())
}

// onJournal appends the same commands, each with one event, to a journal without a host.
func (b *bench) onJournal(dir, title string, o commitlog.Options) (benchRun, error) {
	opened, err := storage.Open(host.JournalDir(dir), storage.Options{})
	if err != nil {
		return benchRun{}, err
	}
	j, err := commitlog.Open(b.env.ctx, opened, o)
	if err != nil {
		return benchRun{}, errors.Join(err, opened.Close())
	}
	defer j.Close(b.env.ctx)
	const accounts = 1000
	load := loadgen.Load{Accounts: accounts, Clients: b.Clients, Duration: b.Duration, Seed: b.Seed, Run: "journal"}
	load.Progress = func(done int) { b.bar.at(title, int64(done), 0, countUnit) }
	r, err := loadgen.Run(b.env.ctx, load, []loadgen.Sender{journalSender{j}}, loadgen.NewBooks(accounts))
	return counted("journal", r, journal.Stats{}, j.Stats()), errors.Join(err, j.Close(b.env.ctx))
}

// journalSender commits each command as one event of another entity, so that it need not keep versions.
type journalSender struct{ j *commitlog.Journal }

func (s journalSender) Send(ctx context.Context, c service.Command) (service.Reply, error) {
	commit := &journal.Commit{
		Log:     journal.LogName(c.Service),
		Command: journal.Command{ID: journal.CommandID(c.ID), Fingerprint: c.Fingerprint(), Type: string(c.Type), Key: string(c.ID), Data: c.Data, Reply: []byte(`{"balance":0}`)},
		Events:  []journal.NewEvent{{Type: string(c.Type), Data: c.Data}},
	}
	type result struct {
		receipt journal.Receipt
		err     error
	}
	done := make(chan result, 1)
	if err := s.j.Append(ctx, commit, func(r journal.Receipt, err error) { done <- result{r, err} }); err != nil {
		return service.Reply{}, err
	}
	r := <-done
	return service.Reply{Events: r.receipt.Events(), Position: r.receipt.Last(), Version: r.receipt.Version()}, r.err
}
