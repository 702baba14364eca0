package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// fill appends n commits of one event to bank/k, which is at version from.
func fill(t *testing.T, j *commitlog.Journal, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i),
			1)); err != nil {
			t.Fatal(err)
		}
	}
}

// Who loads behind a version that the entity does not have, as with a snapshot of
// another journal, does not move the version that commits are checked against.
func TestAFalseVersionIsNotBelieved(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	j := journaltest.Open(t, m.Storage(), commitlog.Options{})
	fill(t, j, 0, 3)
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	j = journaltest.Open(t, m.CrashClone(0).Storage(), commitlog.Options{}) // with an empty cache
	if _, err := j.Load(ctx, "bank", "k", 99, func(*journal.Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", 99, "x", 1)); journal.KindOf(
		err) != journal.KindVersion {
		t.Errorf("an event behind version 99 of an entity at 3: %v", err)
	}
	fill(t, j, 3, 1)
}

// A log that lost what its index already knows is not written on.
func TestALogThatLostItsEndIsRefused(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		drop []int
		says string
	}{
		{"the end", []int{4, 3}, "lost its end"},
		{"all", []int{4, 3, 2, 1, 0}, "lost its end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := journaltest.NewMemory()
			j := journaltest.Open(t, m.Storage(), commitlog.Options{})
			fill(t, j, 0, 5)
			if err := j.Close(ctx); err != nil {
				t.Fatal(err)
			}
			m = m.CrashClone(0)
			for _, block := range c.drop {
				m.Lose("bank", block)
			}
			refusesDamaged(t, m, c.says)
			m = m.CrashClone(0)
			if err := commitlog.Rebuild(ctx, m.Storage(), nil); err != nil {
				t.Fatal(err)
			}
			j = journaltest.Open(t, m.Storage(), commitlog.Options{})
			if err := j.Damage("bank"); err != nil {
				t.Errorf("after somebody has decided: %v", err)
			}
			fill(t, j, 5-len(c.drop), 1)
		})
	}
}

// refusesDamaged opens a journal whose log bank is damaged: that is said, nothing is
// written to it, no state of it has a receipt, and another log works.
func refusesDamaged(t *testing.T, m *journaltest.Memory, says string) {
	t.Helper()
	j, err := commitlog.Open(context.Background(), m.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	damage := j.Damage("bank")
	if journal.KindOf(damage) != journal.KindCorrupt || !strings.Contains(damage.Error(), says) {
		t.Fatalf("the damage is %v", damage)
	}
	if got := fmt.Sprint(j.DamagedLogs()); got != "[bank]" {
		t.Errorf("damaged are %s", got)
	}
	_, appended := journaltest.Append(j, journaltest.Commit("bank", "new", 0, "new", 1))
	for what, err := range map[string]error{"append": appended, "accepts": j.Accepts("bank")} {
		if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(err.Error(), says) {
			t.Errorf("%s says %v", what, err)
		}
	}
	j.Settle("bank", "k", func(r journal.Receipt, err error) {
		if r.Valid() || journal.KindOf(err) != journal.KindCorrupt {
			t.Errorf("settle: %+v, %v", r, err)
		}
	})
	if _, err := journaltest.Append(j, journaltest.Commit("other", "k", 0, "c", 1)); err != nil ||
		j.Damage("other") != nil {
		t.Errorf("another log: %v, %v", err, j.Damage("other"))
	}
	if err := j.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A log with a hole behind what is indexed is not indexed past the hole.
func TestAHoleInTheLogIsFound(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	j := journaltest.Open(t, m.Storage(), commitlog.Options{})
	fill(t, j, 0, 5)
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	m = m.CrashClone(1000) // the index is empty
	m.Lose("bank", 2)
	refusesDamaged(t, m, "batch 4 at position 4 follows on batch 2")
	report, err := verify.Run(ctx, m.CrashClone(0).Storage(), verify.Options{})
	if err != nil || report.Found == 0 {
		t.Errorf("verify finds %v, %v", report.Problems, err)
	}
}

// Close waits for a reader, and who comes later is refused.
func TestCloseWaitsForReaders(t *testing.T) {
	ctx := context.Background()
	j := journaltest.Open(t, journaltest.NewMemory().Storage(), commitlog.Options{})
	fill(t, j, 0, 3)
	inside, leave := make(chan bool), make(chan bool)
	read := make(chan error, 1)
	go func() {
		first := true
		read <- j.Read(ctx, "bank", 0, 0, func(*journal.Event) error {
			if first {
				inside <- true
				<-leave
			}
			first = false
			return nil
		})
	}()
	<-inside
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := j.Close(gone); journal.KindOf(err) != journal.KindCanceled {
		t.Errorf("close with a reader inside: %v", err)
	}
	close(leave)
	if err := <-read; err != nil {
		t.Errorf("the reader inside: %v", err)
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := j.Read(ctx, "bank", 0, 0, func(*journal.Event) error { return nil }); journal.KindOf(
		err) != journal.KindClosed {
		t.Errorf("read after close: %v", err)
	}
	if _, err := j.Load(ctx, "bank", "k", 0, func(*journal.Event) error { return nil }); journal.KindOf(
		err) != journal.KindClosed {
		t.Errorf("load after close: %v", err)
	}
}

// After a failed write no state has a receipt: the caller may have seen a void one.
func TestNoReceiptForAVoidState(t *testing.T) {
	m := journaltest.NewMemory()
	j := journaltest.Open(t, m.Storage(), commitlog.Options{})
	fill(t, j, 0, 2)
	loaded := false
	m.OnAppend(func([]journal.Block) {
		v, err := j.Load(context.Background(), "bank", "k", 0, func(*journal.Event) error { return nil })
		loaded = v == 3 && err == nil
		m.FailAt(1)
	})
	c := journaltest.Commit("bank", "k", 2, "void", 1)
	c.GeneratedID = true // or the look-up of the id would fail first
	if _, err := journaltest.Append(j, c); journal.KindOf(err) != journal.KindFailed {
		t.Fatalf("a failed write: %v", err)
	}
	m.FailAt(0)
	if !loaded {
		t.Error("a commit in flight is not loaded")
	}
	called := 0
	j.Settle("bank", "k", func(r journal.Receipt, err error) {
		called++
		if r.Valid() || journal.KindOf(err) != journal.KindFailed {
			t.Errorf("settle after the failure: %+v, %v", r, err)
		}
	})
	if called != 1 {
		t.Errorf("done was called %d times", called)
	}
	// What is on disk stays readable.
	v, err := j.Load(context.Background(), "bank", "k", 0, func(*journal.Event) error { return nil })
	if v != 2 || err != nil {
		t.Errorf("load after the failure: %d, %v", v, err)
	}
}

// Errors of yield come back as they are, from each scan.
func TestYieldStopsScans(t *testing.T) {
	ctx := context.Background()
	j := journaltest.Open(t, journaltest.NewMemory().Storage(), commitlog.Options{})
	fill(t, j, 0, 3)
	stop := errors.New("enough")
	event := func(*journal.Event) error { return stop }
	if _, err := j.Load(ctx, "bank", "k", 0, event); err != stop {
		t.Errorf("Load: %v", err)
	}
	for name, err := range map[string]error{
		"Read":    j.Read(ctx, "bank", 0, 0, event),
		"Entity":  j.Entity(ctx, "bank", "k", 0, 0, event),
		"Commits": j.Commits(ctx, "bank", 0, func(*journal.Committed) error { return stop }),
	} {
		if err != stop {
			t.Errorf("%s: %v", name, err)
		}
	}
}
