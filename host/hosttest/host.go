// Package hosttest gives tests a complete host in its own directory, and the project's guests as compiled
// modules.
package hosttest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// patience bounds the waits of tests. Only a bug exceeds it.
const patience = 5 * time.Minute

// compileTime is enough for a busy machine, under the race detector.
const compileTime = 10 * time.Minute

// Host is a host for one test. It is closed, and its journal verified, when the
// test ends.
type Host struct {
	*host.Host
	t       testing.TB
	options host.Options
	closed  bool
}

// New opens a host in a new directory. Change, if given, may change its options. It
// waits for services to start, as Restart does.
func New(t testing.TB, change ...func(*host.Options)) *Host {
	t.Helper()
	prove.SkipShort(t, "it starts a whole host")
	h := &Host{t: t, options: host.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}}
	h.options.Limits.CompileTime = compileTime
	for _, f := range change {
		f(&h.options)
	}
	h.open()
	t.Cleanup(func() {
		h.Stop()
		h.verify()
	})
	return h
}

// Dir is the host's directory.
func (h *Host) Dir() string { return h.options.Dir }

func (h *Host) open() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	opened, err := host.Open(ctx, h.options)
	if err != nil {
		h.t.Fatalf("open host: %v", err)
	}
	h.Host, h.closed = opened, false
	if err := h.Started(ctx); err != nil {
		h.t.Fatalf("start services: %v", err)
	}
}

// Stop closes the host.
func (h *Host) Stop() {
	h.t.Helper()
	if h.closed {
		return
	}
	h.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		h.t.Errorf("close host: %v", err)
	}
	h.settled()
}

// settled checks that everything was given back to the host's budget.
func (h *Host) settled() {
	for r := range budget.Readers {
		if used := h.Account().Used(r); used != 0 {
			h.t.Errorf("%d of %s are still taken when the host is closed, by %v", used, r, h.Account().Holders(r, 10))
		}
	}
}

// Restart closes the host and opens it again on the same directory.
func (h *Host) Restart() {
	h.t.Helper()
	h.Change(func(*host.Options) {})
}

// Change is Restart with other options.
func (h *Host) Change(options func(*host.Options)) {
	h.t.Helper()
	h.Stop()
	options(&h.options)
	h.open()
}

// verify verifies the journal after the test. Before that it opens the journal once, so that the index is
// complete even if the host was not closed regularly.
func (h *Host) verify() {
	ctx := context.Background()
	open := h.options.OpenStorage
	if open == nil {
		open = func() (journal.Storage, error) {
			return storage.Open(host.JournalDir(h.options.Dir), storage.Options{})
		}
	}
	opened, err := open()
	if err == nil {
		var j *commitlog.Journal
		if j, err = commitlog.Open(ctx, opened, commitlog.Options{}); err == nil {
			err = j.Close(ctx)
		}
	}
	if err == nil {
		opened, err = open()
	}
	if err != nil {
		h.t.Errorf("open journal to verify it: %v", err)
		return
	}
	report, err := verify.Run(ctx, opened, verify.Options{})
	if err := errors.Join(err, opened.Close()); err != nil {
		h.t.Errorf("verify journal: %v", err)
	}
	for _, p := range report.Problems {
		h.t.Errorf("the journal is wrong: %s", p)
	}
}

// MustDeploy deploys a module as a service.
func (h *Host) MustDeploy(name service.Name, module []byte) service.Status {
	h.t.Helper()
	st, err := h.Deploy(h.t.Context(), service.Deployment{Service: name, Module: module})
	if err != nil {
		h.t.Fatalf("deploy %s: %v", name, err)
	}
	return st
}

// MustSend sends a command that must succeed.
func (h *Host) MustSend(c service.Command) service.Reply {
	h.t.Helper()
	r, err := h.Send(h.t.Context(), c)
	if err != nil {
		h.t.Fatalf("send %s to %s/%s: %v", c.Type, c.Service, c.Key, err)
	}
	return r
}
