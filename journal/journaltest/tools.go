// Tools of tests that look at a journal from outside.

package journaltest

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// Overwrite gives every index entry with the prefix the value.
func Overwrite(t *testing.T, m *Memory, prefix, value string) {
	t.Helper()
	ctx := context.Background()
	var pairs []journal.Pair
	err := m.Index().Scan(ctx, []byte(prefix), []byte(prefix), func(k, _ []byte) error {
		pairs = append(pairs, journal.Pair{Key: append([]byte{}, k...), Value: []byte(value)})
		return nil
	})
	if err != nil || len(pairs) == 0 {
		t.Fatalf("no entries with prefix %q, or %v", prefix, err)
	}
	if err := m.Index().Update(ctx, pairs); err != nil {
		t.Fatal(err)
	}
}

// CopyIndex copies the index's entries with the prefix.
func CopyIndex(t *testing.T, to, from *Memory, prefix string) {
	t.Helper()
	ctx := context.Background()
	var pairs []journal.Pair
	err := from.Index().Scan(ctx, []byte(prefix), []byte(prefix), func(k, v []byte) error {
		pairs = append(pairs, journal.Pair{Key: append([]byte{}, k...), Value: append([]byte{}, v...)})
		return nil
	})
	if err == nil {
		err = to.Index().Update(ctx, pairs)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TakeIndex gives m the index of another journal.
func TakeIndex(t *testing.T, m, other *Memory) {
	t.Helper()
	if err := m.Index().Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	CopyIndex(t, m, other, "")
}

// AllIndexed waits until everything is indexed.
func AllIndexed(t *testing.T, j *commitlog.Journal) {
	t.Helper()
	if _, err := j.EventTypes(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
}

// Open opens a journal on s; the test's end closes it.
func Open(t *testing.T, s journal.Storage, o commitlog.Options) *commitlog.Journal {
	t.Helper()
	j, err := commitlog.Open(context.Background(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return j
}

// Close closes a journal, which must not fail.
func Close(t *testing.T, j *commitlog.Journal) {
	t.Helper()
	if err := j.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// Proved verifies what is stored, in which nothing may be found.
func Proved(t *testing.T, m *Memory) verify.Report {
	t.Helper()
	report, err := verify.Run(t.Context(), m.Storage(), verify.Options{})
	if err != nil || report.Found > 0 {
		t.Errorf("verify: %.500v, %v", report.Problems, err)
	}
	return report
}

// ClockAt is a clock that shows what is in at. Goroutines of the journal read it, so a test moves it with Advance.
func ClockAt(at *journal.UnixNano) func() journal.UnixNano {
	return func() journal.UnixNano { return journal.UnixNano(atomic.LoadInt64((*int64)(at))) }
}

// Advance moves a clock of ClockAt.
func Advance(at *journal.UnixNano, by journal.UnixNano) { atomic.AddInt64((*int64)(at), int64(by)) }
