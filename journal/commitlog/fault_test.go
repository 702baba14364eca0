package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// For n = 1, 2, 3 … the n-th operation of the storage fails, and all after it, until
// a run gets through. After each the machine loses power, having lost up to three
// updates of the index: every acknowledged commit is there once and whole, and
// the journal is sound.
func TestEachOperationFails(t *testing.T) {
	ctx := context.Background()
	for n := 1; ; n++ {
		m := journaltest.NewMemory()
		m.FailAt(n)
		acknowledged := map[string]journal.Receipt{}
		unknown := map[string]bool{}
		failed := false
		if j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{MaxGroupCommits: 2}); err != nil {
			failed = true
		} else {
			versions := map[string]journal.Version{}
			for i := range 12 {
				key, id := fmt.Sprint("k", i%3), fmt.Sprint("c", i)
				r, err := journaltest.Append(j, journaltest.Commit("bank", key, versions[key], id, i%4))
				switch {
				case err == nil:
					acknowledged[id], versions[key] = r, r.Version()
				case journal.KindOf(err) == journal.KindFailed:
					unknown[id], failed = true, true
				default:
					failed = true
				}
			}
			if failed && len(unknown) > 0 {
				<-j.Failed()
				if j.Err() == nil {
					t.Errorf("n=%d: failed without a reason", n)
				}
				if _, err := journaltest.Append(j, journaltest.Commit("bank", "k0", 99, "late", 1)); journal.KindOf(
					err) != journal.KindFailed {
					t.Errorf("n=%d: a failed journal answers %v", n, err)
				}
			}
			if err := j.Close(ctx); err != nil && !errors.Is(err, journaltest.ErrInjected) {
				t.Errorf("n=%d: close: %v", n, err)
			}
		}
		for lost := range 4 {
			check(t, n, m.CrashClone(lost), acknowledged, unknown)
		}
		if !failed && m.Operations() < n {
			t.Logf("%d operations, each failed once", n-1)
			return
		}
	}
}

func check(
	t *testing.T, n int, m *journaltest.Memory, acknowledged map[string]journal.Receipt, unknown map[string]bool,
) {
	t.Helper()
	ctx := context.Background()
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatalf("n=%d: open after the crash: %v", n, err)
	}
	seen := map[string]int{}
	err = j.Commits(ctx, "bank", 0, func(c *journal.Committed) error {
		id := string(c.Command.ID)
		seen[id]++
		if r, ok := acknowledged[id]; ok && (r.Version() != c.Version || r.First() != c.First ||
			r.Events() != len(c.Events)) {
			t.Errorf("n=%d: %s was acknowledged as %+v and is %+v", n, id, r, c)
		} else if !ok && !unknown[id] {
			t.Errorf("n=%d: %s is there although it was refused", n, id)
		}
		return nil
	})
	if err != nil {
		t.Errorf("n=%d: %v", n, err)
	}
	for id, r := range acknowledged {
		if seen[id] != 1 {
			t.Errorf("n=%d: %s was acknowledged and is there %d times", n, id, seen[id])
		}
		found, err := j.Answer(ctx, "bank", journal.CommandID(id),
			func(c *journal.Committed, again journal.Receipt, err error) {
				if err != nil || again != r {
					t.Errorf("n=%d: the answer of %s was %+v and is %+v, %v", n, id, r, again, err)
				}
			})
		if !found || err != nil {
			t.Errorf("n=%d: no answer for %s: %v", n, id, err)
		}
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	report, err := verify.Run(ctx, m.CrashClone(0).Storage(), verify.Options{})
	if err != nil || report.Found > 0 {
		t.Errorf("n=%d: verify: %v, %v", n, report.Problems, err)
	}
}

// Every bit of a stored batch is under its checksum: a flipped one is found, named
// and never served, and what stands before it is.
func TestFlippedBitsAreFound(t *testing.T) {
	ctx := context.Background()
	whole := journaltest.NewMemory()
	j, err := commitlog.Open(ctx, whole.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i),
			1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * 250 {
		m := whole.CrashClone(0)
		m.Corrupt("bank", 1, bit)
		j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		served := 0
		err = j.Read(ctx, "bank", 0, 0, func(e *journal.Event) error { served++; return nil })
		if journal.KindOf(err) != journal.KindCorrupt || served != 1 {
			t.Fatalf("bit %d: %d events served, %v", bit, served, err)
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		report, err := verify.Run(ctx, m.CrashClone(0).Storage(), verify.Options{})
		if err != nil || report.Found == 0 || report.Problems[0].Sequence != 2 {
			t.Fatalf("bit %d: verify says %v, %v", bit, report.Problems, err)
		}
	}
}

// A full journal makes Append wait, no longer than its context.
func TestBackPressure(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	release := make(chan struct{})
	m.OnAppend(func([]journal.Block) { <-release })
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{MaxPendingCommits: 2})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 3)
	add := func(ctx context.Context, at journal.Version) error {
		return j.Append(ctx, journaltest.Commit("bank", "k", at, fmt.Sprint("c", at), 1),
			func(_ journal.Receipt, err error) { done <- err })
	}
	for i := range journal.Version(2) {
		if err := add(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := add(short, 2); journal.KindOf(err) != journal.KindCanceled || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a full journal: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- add(ctx, 2) }()
	close(release)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
}

// Time as batches have it never goes back, whatever the clock does.
func TestClockGoesBackwards(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	now := journal.UnixNano(1000)
	last := journal.UnixNano(0)
	for i := range 6 {
		j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{Clock: journaltest.ClockAt(&now)})
		if err != nil {
			t.Fatal(err)
		}
		r, err := journaltest.Append(j, journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i), 1))
		if err != nil || r.Time() < last {
			t.Errorf("after time %d came %d, %v", last, r.Time(), err)
		}
		last = r.Time()
		if r.First() != journal.Position(i+1) {
			t.Errorf("commit %d stands at %d", i, r.First())
		}
		journaltest.Advance(&now, -300)
		if i == 3 {
			journaltest.Advance(&now, 365*24*3600*1e9) // a year ahead, and back again
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		m = m.CrashClone(0)
	}
}
