package host_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// stuck holds up scans of one log while a gate is closed.
type stuck struct {
	log journal.LogName

	mu   sync.Mutex
	gate chan struct{} // nil: open
}

func (s *stuck) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

func (s *stuck) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate = nil
}

func (s *stuck) wrap(to journal.Storage) journal.Storage {
	to.Log = stuckLog{to.Log, s}
	return to
}

type stuckLog struct {
	journal.LogStore
	s *stuck
}

func (l stuckLog) Blocks(
	ctx context.Context, log journal.LogName, from journal.Position, yield func(journal.Block) error,
) error {
	l.s.mu.Lock()
	gate := l.s.gate
	l.s.mu.Unlock()
	if gate != nil && log == l.s.log {
		<-gate
	}
	return l.LogStore.Blocks(ctx, log, from, yield)
}

// While one reader reads the log, all other readers of the host wait, whatever their kind. Commands do not
// wait, not even those to entities that must be read first.
func TestReadersWaitForEachOtherAndNobodyForThem(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewMemory()
	var scans *stuck
	h := hosttest.New(t, func(o *host.Options) {
		o.Budget.Readers = 1
		o.OpenStorage = func() (journal.Storage, error) {
			disk = disk.CrashClone(0)
			scans = &stuck{log: "tally"}
			return scans.wrap(disk.Storage()), nil
		}
	})
	h.MustDeploy("tally", testguest.Counter("tally"))
	for n := range 40 {
		h.MustSend(add(service.Key(fmt.Sprint("k", n%4))))
	}
	h.Restart() // empties the memory
	scans.close()
	ctx := service.WithReader(context.Background(), "first")
	var reading sync.WaitGroup
	reading.Go(func() {
		page, err := h.Events(ctx, service.Selection{Service: "tally"}, 0)
		if err != nil || len(page.Events) == 0 {
			t.Errorf("the one who reads: %d events, %v", len(page.Events), err)
		}
	})
	until(t, func() bool { return h.Readers().Reading == 1 })

	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	<-short.Done()
	for name, read := range map[string]func() error{
		"a page": func() error { _, err := h.Events(short, service.Selection{Service: "tally"}, 0); return err },
		"a page by key": func() error {
			_, err := h.Events(short, service.Selection{Service: "tally", Keys: []service.Key{"k1"}}, 0)
			return err
		},
		"of an entity":  func() error { _, err := h.EntityEvents(short, "tally", "k1", 0, 0); return err },
		"a backup":      func() error { _, err := h.Backup(short, io.Discard, service.BackupOptions{}); return err },
		"batches":       func() error { _, err := h.Batches(short, "tally", io.Discard, 0); return err },
		"a measurement": func() error { _, err := h.Measure(short, "tally"); return err },
		"for a retention": func() error {
			_, err := h.Retain(short, "tally", service.Retention{Before: 5, DryRun: true})
			return err
		},
	} {
		if err := read(); err == nil {
			t.Errorf("%s did not wait", name)
		}
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		sub, err := h.Subscribe(context.Background(), service.Selection{Service: "tally"})
		for read := 0; err == nil && read < 44; {
			var events []*service.Event
			events, err = sub.Next(context.Background(), 0)
			read += len(events)
		}
		if err != nil {
			t.Error(err)
		}
	})
	var backup bytes.Buffer
	waiting.Go(func() {
		if _, err := h.Backup(context.Background(), &backup, service.BackupOptions{}); err != nil {
			t.Error(err)
		}
	})
	waiting.Go(func() {
		if size, err := h.Measure(context.Background(), "tally"); err != nil || size.Events < 40 {
			t.Errorf("%+v, %v", size, err)
		}
	})
	until(t, func() bool { return h.Readers().Waiting == 3 })

	for n := range 4 {
		key := service.Key(fmt.Sprint("k", n))
		if r := h.MustSend(add(key)); string(r.Data) != "11" {
			t.Errorf("%s counts %s", key, r.Data)
		}
	}
	for _, u := range h.Resources() {
		if u.Resource == "readers" && (u.Used != 1 || u.Limit != 1 || u.Refused != 0) {
			t.Errorf("%+v", u)
		}
	}
	if r := h.Readers(); r.Reading != 1 || r.Waiting != 3 || r.AtOnce != 1 {
		t.Errorf("%+v", r)
	}
	scans.open()
	reading.Wait()
	waiting.Wait()
	if r := h.Readers(); r.Waiting != 0 || r.Turns < 4 || r.ReadTime == 0 || r.WaitTime == 0 || r.SharedBytes == 0 ||
		backup.Len() == 0 {
		t.Errorf("%+v", r)
	}
}

// The number of waiting readers is bounded; further ones are refused as overload.
func TestTooManyReadersAreRefused(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewMemory()
	var scans *stuck
	h := hosttest.New(t, func(o *host.Options) {
		o.Budget.Readers, o.MaxWaitingReaders = 1, 1
		o.OpenStorage = func() (journal.Storage, error) {
			disk = disk.CrashClone(0)
			scans = &stuck{log: "tally"}
			return scans.wrap(disk.Storage()), nil
		}
	})
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("k"))
	h.Restart()
	scans.close()
	var all sync.WaitGroup
	for n := range 2 {
		all.Go(func() {
			if _, err := h.Events(context.Background(), service.Selection{Service: "tally"}, 0); err != nil {
				t.Error(err)
			}
		})
		until(t, func() bool { r := h.Readers(); return r.Reading+r.Waiting == n+1 })
	}
	for name, read := range map[string]func() error{
		"a page": func() error {
			_, err := h.Events(t.Context(), service.Selection{Service: "tally"}, 0)
			return err
		},
		"of an entity": func() error { _, err := h.EntityEvents(t.Context(), "tally", "k", 0, 0); return err },
		"a backup": func() error {
			_,
				err := h.Backup(t.Context(), io.Discard, service.BackupOptions{})
			return err
		},
	} {
		if err := read(); service.KindOf(err) != service.KindOverloaded {
			t.Errorf("%s: %v", name, err)
		}
	}
	scans.open()
	all.Wait()
}
