package commitlog_test

import (
	"context"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

func TestMemoryStorage(t *testing.T) {
	journaltest.Run(t, func(t *testing.T) journaltest.Reopener {
		var m *journaltest.Memory
		return func(t testing.TB) journal.Storage {
			if m == nil {
				m = journaltest.NewMemory()
			} else {
				m = m.CrashClone(0)
			}
			return m.Storage()
		}
	})
}

// The index may lose any number of its last updates; Open completes it.
func TestLostIndexIsCompleted(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "alice", journal.Version(i), string(rune('a'+i)),
			1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for lost := range 12 {
		c := m.CrashClone(lost)
		j, err := commitlog.Open(ctx, c.Storage(), commitlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := j.Load(ctx, "bank", "alice", 0, func(*journal.Event) error { return nil }); v != 10 || err != nil {
			t.Errorf("%d updates lost: version %d, %v", lost, v, err)
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		report, err := verify.Run(ctx, c.CrashClone(0).Storage(), verify.Options{})
		if err != nil || report.Found > 0 {
			t.Errorf("%d updates lost: %v, %v", lost, report.Problems, err)
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	journaltest.Bench(b, func(*testing.B) journal.Storage { return journaltest.NewMemory().Storage() }, nil)
}
