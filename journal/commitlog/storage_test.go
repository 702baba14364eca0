package commitlog_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// remembered are heads of logs, until they are forgotten.
type remembered map[journal.LogName]journal.Head

func (r remembered) Heads() map[journal.LogName]journal.Head { return r }
func (r remembered) ForgetHeads() error                      { clear(r); return nil }

// five returns a storage in memory with five batches of bank.
func five(t *testing.T) *journaltest.Memory {
	t.Helper()
	m := journaltest.NewMemory()
	j := journaltest.Open(t, m.Storage(), commitlog.Options{MaxGroupCommits: 1})
	fill(t, j, 0, 5)
	journaltest.Close(t, j)
	return m.CrashClone(0)
}

// A log that ends before the head that the storage remembers has lost its end, also if the index knows nothing of that
// end. A rebuild accepts what there is.
func TestHeadsOfAStorage(t *testing.T) {
	m := five(t)
	j := journaltest.Open(t, m.Storage(), commitlog.Options{})
	if err := j.Damage("bank"); err != nil {
		t.Errorf("without heads: %v", err)
	}
	journaltest.Close(t, j)
	s := m.CrashClone(0).Storage()
	heads := remembered{"bank": {Sequence: 6, First: 6}}
	s.Heads = heads
	j, err := commitlog.Open(t.Context(), s, commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Damage("bank"); err == nil || !strings.Contains(err.Error(), "lost its end") {
		t.Errorf("the damage is %v", err)
	}
	journaltest.Close(t, j)
	s = m.CrashClone(0).Storage()
	s.Heads = heads
	if err := commitlog.Rebuild(t.Context(), s, nil); err != nil || len(heads) > 0 {
		t.Errorf("a rebuild: %v, the heads are %v", err, heads)
	}
}

// If files are quarantined, Open reads all logs, and names the files with the damage that it finds.
func TestQuarantinedFilesOfAStorage(t *testing.T) {
	m := five(t)
	m.Corrupt("bank", 2, 1000)
	for _, files := range [][]string{nil, {"000042.vlog"}} {
		s := m.CrashClone(0).Storage()
		s.Quarantined = func() []string { return files }
		j, err := commitlog.Open(t.Context(), s, commitlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = j.Damage("bank")
		if found := err != nil && strings.Contains(err.Error(), "000042.vlog"); found != (files != nil) {
			t.Errorf("with the quarantined files %v the damage is %v", files, err)
		}
		journaltest.Close(t, j)
	}
}

// A retention has the storage compacted at its end, and its error is that of the retention.
func TestARetentionCompactsTheStorage(t *testing.T) {
	for _, fails := range []error{nil, errors.New("the disk is gone")} {
		calls := 0
		s := journaltest.NewMemory().Storage()
		s.Compact = func(context.Context) error { calls++; return fails }
		r := newRetainer(t, s)
		if err := r.add(20); err != nil {
			t.Fatal(err)
		}
		r.later()
		_, err := r.Retain(t.Context(), "bank", journal.Retention{Before: 11, Cover: r.cover(1), Schema: 1})
		if !errors.Is(err, fails) || calls != 1 {
			t.Errorf("the storage was compacted %d times: %v, want %v", calls, err, fails)
		}
		journaltest.Close(t, r.Journal)
	}
}

// Statistics count what the storage wrote since the journal was opened.
func TestCountsOfAStorage(t *testing.T) {
	s := journaltest.NewMemory().Storage()
	counts := journal.StorageStats{LogBytes: 7, Written: 100}
	s.Count = func() journal.StorageStats { return counts }
	j := journaltest.Open(t, s, commitlog.Options{})
	counts.Written, counts.LogBytes = 150, 9
	if got := j.Stats().Storage; got != (journal.StorageStats{LogBytes: 9, Written: 50}) {
		t.Errorf("the counts are %+v", got)
	}
}
