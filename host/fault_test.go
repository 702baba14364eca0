package host_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// disks are the in-memory storages of one host. Each opening sees the disk as after a loss of power at that
// moment.
type disks struct {
	mu  sync.Mutex
	now *journaltest.Memory
}

func (d *disks) open() (journal.Storage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.now.Space(); err != nil {
		return journal.Storage{}, err
	}
	d.now = d.now.CrashClone(0)
	return d.now.Storage(), nil
}

func (d *disks) disk() *journaltest.Memory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func onMemory(t *testing.T) (*hosttest.Host, *disks) {
	d := &disks{now: journaltest.NewMemory()}
	h := hosttest.New(t, func(o *host.Options) { o.OpenStorage, o.RecoveryWait = d.open, time.Millisecond })
	h.MustDeploy("tally", testguest.Counter("tally"))
	return h, d
}

// until calls f until it returns true, or the test ends.
func until(t *testing.T, f func() bool) {
	t.Helper()
	for !f() {
		if t.Context().Err() != nil {
			t.Fatal("it never comes")
		}
		runtime.Gosched()
	}
}

// reads reads in every possible way.
func reads(t *testing.T, h *hosttest.Host, head service.Position) {
	t.Helper()
	read, at := 0, service.Position(0)
	for done := false; !done; {
		page, err := h.Events(t.Context(), service.Selection{Service: "tally", From: service.AfterPosition(at)}, 0)
		if err != nil {
			t.Errorf("a page after %d: %v", at, err)
			break
		}
		read, at, done = read+len(page.Events), page.Next, page.AtHead
	}
	if at != head || read != int(head) {
		t.Errorf("pages have %d events up to %d, not %d", read, at, head)
	}
	of, err := h.EntityEvents(t.Context(), "tally", "k", 0, 0)
	if err != nil || len(of) == 0 {
		t.Errorf("the entity's events: %d, %v", len(of), err)
	}
	if at, err := h.Head("tally"); err != nil || at != head {
		t.Errorf("the head is %d, %v", at, err)
	}
	if st, err := h.Status("tally"); err != nil || st.Head != head {
		t.Errorf("the status: %+v, %v", st, err)
	}
}

// A full disk refuses only commands, and accepts them again when there is room.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	h, d := onMemory(t)
	h.MustSend(add("k"))
	h.MustSend(add("cold"))
	sub, err := h.Subscribe(t.Context(), service.Selection{Service: "tally", From: service.AfterPosition(2)})
	if err != nil {
		t.Fatal(err)
	}
	d.disk().Fill(true)
	c := add("k")
	c.ID = "while-full"
	until(t, func() bool {
		_, err = h.Send(t.Context(), add("j"))
		return err != nil
	})
	_, err = h.Send(t.Context(), c)
	var e *service.Error
	if service.KindOf(err) != service.KindFull || !errors.As(err, &e) || e.RetryAfter == 0 {
		t.Errorf("a command: %v", err)
	}
	if err := h.Ready(); service.KindOf(err) != service.KindFull {
		t.Errorf("ready: %v", err)
	}
	_, err = h.Deploy(t.Context(), service.Deployment{Service: "other", Module: testguest.Counter("other")})
	if service.KindOf(err) != service.KindFull {
		t.Errorf("a deployment: %v", err)
	}
	for key, want := range map[service.Key]string{"k": "1", "cold": "1", "nobody": "0"} {
		r, err := h.Query(t.Context(), service.Query{Service: "tally", Key: key, Type: "count"})
		if err != nil || string(r.Data) != want {
			t.Errorf("a query of %s: %s, %v", key, r.Data, err)
		}
	}
	head, err := h.Head("tally")
	if err != nil {
		t.Fatal(err)
	}
	reads(t, h, head)
	d.disk().Fill(false)
	until(t, func() bool {
		var r service.Reply
		r, err = h.Send(t.Context(), c)
		return err == nil && !r.Repeated
	})
	for at := service.Position(2); at <= head; at = sub.Position() {
		if _, err := sub.Next(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Ready(); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// After a write that fails for lack of space, commands in flight are unknown, further ones are refused, and
// what is on disk can be read. A subscriber only sees a pause. The journal is opened again when there is
// room.
func TestAWriteMeetsAFullDisk(t *testing.T) {
	t.Parallel()
	h, d := onMemory(t)
	h.MustSend(add("k"))
	sub, err := h.Subscribe(t.Context(), service.Selection{Service: "tally", From: service.AfterPosition(1)})
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return h.Stats().Pending == 0 })
	disk := d.disk()
	disk.OnAppend(func([]journal.Block) {
		disk.Fill(true)
		disk.FailAt(1)
	})
	c := add("k")
	c.ID = "unknown"
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindUnknown {
		t.Fatalf("the command whose write failed: %v", err)
	}
	disk.FailAt(0) // but the journal stays failed
	until(t, func() bool { return service.KindOf(h.Ready()) == service.KindFull })
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindFull {
		t.Errorf("a command meanwhile: %v", err)
	}
	reads(t, h, 1)
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sub.Next(short, 0); err != context.Canceled {
		t.Errorf("a subscriber meanwhile: %v", err)
	}
	heard := make(chan error, 1)
	go func() {
		events, err := sub.Next(t.Context(), 0) // waits until the journal is open again
		if err == nil && (len(events) != 1 || events[0].Position != 2 || events[0].CommandID != "unknown") {
			err = fmt.Errorf("it hears %+v", events)
		}
		heard <- err
	}()
	disk.Fill(false)
	until(t, func() bool {
		r, err := h.Send(t.Context(), c)
		return err == nil && r.Position == 2
	})
	if err := <-heard; err != nil {
		t.Errorf("the subscriber afterwards: %v", err)
	}
	reads(t, h, 2)
}

// The service of a damaged log is refused with what is damaged and where; the other runs.
func TestADamagedServiceIsRefused(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewMemory()
	dir := t.TempDir()
	ctx := t.Context()
	open := func() *host.Host {
		h, err := host.Open(ctx, host.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler),
			OpenStorage: func() (journal.Storage, error) {
				disk = disk.CrashClone(0)
				return disk.Storage(), nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := open()
	to := func(name service.Name, key service.Key) service.Command {
		c := add(key)
		c.Service = name
		return c
	}
	for _, name := range []service.Name{"tally", "other"} {
		if _, err := h.Deploy(ctx,
			service.Deployment{Service: name, Module: testguest.Counter(string(name))}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := h.Send(ctx, to(name, "k")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	disk = disk.CrashClone(0)
	disk.Lose("tally", 2)
	h = open()
	defer h.Close(ctx)
	_, sent := h.Send(ctx, to("tally", "k"))
	_, asked := h.Query(ctx, service.Query{Service: "tally", Key: "k", Type: "count"})
	_, read := h.Events(ctx, service.Selection{Service: "tally", From: service.AfterPosition(2)}, 0)
	for what, err := range map[string]error{"a command": sent, "a query": asked} {
		if service.KindOf(err) != service.KindDamaged || !strings.Contains(err.Error(), "batch 3") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if read != nil && service.KindOf(read) != service.KindDamaged {
		t.Errorf("its events: %v", read)
	}
	if page, err := h.Events(ctx, service.Selection{Service: "tally"}, 2); err != nil || len(page.Events) != 2 {
		t.Errorf("the events before the damage: %d, %v", len(page.Events), err)
	}
	if st, err := h.Status("tally"); err != nil || st.State != service.StateFailed ||
		!strings.Contains(st.Problem, "batch 3") {
		t.Errorf("its status: %s, %q, %v", st.State, st.Problem, err)
	}
	if r, err := h.Send(ctx, to("other", "k")); err != nil || r.Version != 4 {
		t.Errorf("the other service: %+v, %v", r, err)
	}
	if err := h.Ready(); err != nil {
		t.Errorf("the host is not ready: %v", err)
	}
}

// Errors of opening the journal are phrased for the operator who starts the host.
func TestWhyAJournalDoesNotOpen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		kind service.Kind
		says string
	}{
		{&journal.Error{Kind: journal.KindLocked}, service.KindUnavailable, "another process uses this data directory"},
		{&journal.Error{Kind: journal.KindFull, Err: syscall.ENOSPC}, service.KindFull, "make room"},
		{&journal.Error{Kind: journal.KindCorrupt, Detail: "MANIFEST is damaged"}, service.KindDamaged,
			"MANIFEST is damaged"},
		{&journal.Error{Err: &os.PathError{Op: "open", Path: "opened", Err: syscall.EROFS}}, service.KindInvalid,
			"cannot be written"},
		{&journal.Error{Err: &os.PathError{Op: "open", Path: "opened", Err: syscall.EACCES}}, service.KindInvalid,
			"cannot be written"},
		{errors.New("anything"), service.KindUnavailable, "cannot be opened"},
	} {
		_, err := host.Open(t.Context(),
			host.Options{Dir: t.TempDir(),
				OpenStorage: func() (journal.Storage, error) { return journal.Storage{}, c.err }})
		if service.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}
