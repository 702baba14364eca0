package journaltest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// Snapshot is one of an entity at a version; its state says of which.
func Snapshot(log journal.LogName, key string, v journal.Version) journal.Snapshot {
	return journal.Snapshot{Version: v, Module: journal.Digest{7}, Schema: 3,
		State: fmt.Appendf(nil, "%s/%s at %d", log, key, v)}
}

// testSnapshots puts and gets snapshots, before and after opening again.
func testSnapshots(t *testing.T, open Reopener) {
	ctx := context.Background()
	j := openJournal(t, open, commitlog.Options{})
	want := func(key string, v journal.Version, state string) {
		t.Helper()
		s, ok, err := j.Snapshot(ctx, "bank", key)
		must(t, err)
		if ok != (v > 0) || s.Version != v || string(s.State) != state {
			t.Errorf("the snapshot of %s is %v, version %d, %d bytes; want version %d", key, ok, s.Version,
				len(s.State), v)
		}
		if ok && (s.Module != journal.Digest{7} || s.Schema != 3 || s.State == nil) {
			t.Errorf("the snapshot of %s has %v, %d, %v", key, s.Module, s.Schema, s.State)
		}
	}
	if j.PutSnapshot(ctx, "bank", "alice", Snapshot("bank", "alice", 1)) {
		t.Error("kept one of an entity that nobody wrote to")
	}
	for _, key := range []string{"alice", "bob", "carol", "dave"} {
		_, err := Append(j, Commit("bank", key, 0, "c-"+key, 3))
		must(t, err)
	}
	if j.PutSnapshot(ctx, "bank", "alice", Snapshot("bank", "alice", 4)) ||
		j.PutSnapshot(ctx, "bank", "alice", journal.Snapshot{State: []byte{}}) ||
		j.PutSnapshot(ctx, "bank", "alice", journal.Snapshot{Version: 1, State: make([]byte, journal.MaxSnapshot+1)}) {
		t.Error("kept one that is ahead of its entity, of no version, or too big")
	}
	big := Snapshot("bank", "carol", 3)
	big.State = []byte(strings.Repeat("big", 1<<20))
	empty := Snapshot("bank", "dave", 3)
	empty.State = []byte{}
	for _, kept := range []bool{
		j.PutSnapshot(ctx, "bank", "alice", Snapshot("bank", "alice", 2)),
		j.PutSnapshot(ctx, "bank", "alice", Snapshot("bank", "alice", 3)),
		j.PutSnapshot(ctx, "bank", "carol", big),
		j.PutSnapshot(ctx, "bank", "dave", empty),
	} {
		if !kept {
			t.Error("a good one is not kept")
		}
	}
	for range 3 { // at once, and after opening again
		want("alice", 3, "bank/alice at 3")
		want("bob", 0, "")
		want("carol", 3, string(big.State))
		want("dave", 3, "")
		want("nobody", 0, "")
		if _, ok, err := j.Snapshot(ctx, "other", "alice"); ok || err != nil {
			t.Errorf("another log has it: %v, %v", ok, err)
		}
		must(t, j.Close(ctx))
		j = openJournal(t, open, commitlog.Options{VersionCache: 1})
	}
	// An entity that has not been touched yet since.
	if !j.PutSnapshot(ctx, "bank", "bob", Snapshot("bank", "bob", 3)) ||
		j.PutSnapshot(ctx, "bank", "carol", Snapshot("bank", "carol", 4)) {
		t.Error("the version of a cold entity is mistaken")
	}
	_, err := Append(j, Commit("bank", "bob", 3, "c2-bob", 2))
	must(t, err)
	want("bob", 3, "bank/bob at 3")
	if seen, v := load(t, j, "bank", "bob", 3); fmt.Sprint(seen) != "[4 5]" || v != 5 {
		t.Errorf("behind its snapshot bob has %v, %d", seen, v)
	}
	for range 2 { // from memory, and from the index
		for after, at := range map[journal.Version]journal.Version{3: 3, 4: 3, 1000: 3} {
			if seen, v := load(t, j, "bank", "alice", after); len(seen) > 0 || v != at {
				t.Errorf("behind %d alice has %v, and is at %d", after, seen, v)
			}
		}
		must(t, j.Close(ctx))
		j = openJournal(t, open, commitlog.Options{})
	}
	must(t, j.Close(ctx))
	if j.PutSnapshot(ctx, "bank", "alice", Snapshot("bank", "alice", 3)) {
		t.Error("a closed journal keeps one")
	}
	verified(t, open, 4)
}

// verified proves a journal that nobody has open, and how many snapshots "bank" has.
func verified(t *testing.T, open Reopener, snapshots uint64) {
	t.Helper()
	e := open(t)
	report, err := verify.Run(context.Background(), e, verify.Options{})
	must(t, err)
	if report.Found > 0 || report.Logs["bank"].Snapshots != snapshots {
		t.Errorf("verify: %v, %d snapshots, want %d", report.Problems, report.Logs["bank"].Snapshots, snapshots)
	}
	must(t, e.Close())
}

// testRebuild makes the index again from the log alone: it is byte by byte what it was,
// without the snapshots.
func testRebuild(t *testing.T, open Reopener) {
	ctx := context.Background()
	for _, o := range []commitlog.Options{{}, {MaxGroupCommits: 1}, {MaxBatchBytes: 300}} {
		j := openJournal(t, open, o)
		for i := range 60 {
			log, key := journal.LogName([]string{"bank", "orders", "_host"}[i%3]), fmt.Sprint("k", i%7)
			at, err := j.Load(ctx, log, key, 0, func(*journal.Event) error { return nil })
			must(t, err)
			r, err := Append(j, Commit(log, key, at, fmt.Sprint("c", i, o), i%4))
			must(t, err)
			if i%2 == 0 && r.Version() > 0 && !j.PutSnapshot(ctx, log, key, Snapshot(log, key, r.Version())) {
				t.Errorf("the snapshot of %s at %d is not kept", key, r.Version())
			}
		}
		must(t, j.Close(ctx))
	}
	e := open(t)
	snapshots, before := index(t, e)
	if snapshots == 0 {
		t.Error("there were no snapshots to lose")
	}
	must(t, commitlog.Rebuild(ctx, e, nil))
	snapshots, after := index(t, e)
	if snapshots != 0 || !bytes.Equal(before, after) {
		t.Errorf("made again it has %d snapshots and %d bytes; before it had %d bytes", snapshots, len(after),
			len(before))
	}
	must(t, e.Close())
	verified(t, open, 0)
	j := openJournal(t, open, commitlog.Options{})
	if _, ok, err := j.Snapshot(ctx, "bank", "k0"); ok || err != nil {
		t.Errorf("a snapshot after the rebuild: %v, %v", ok, err)
	}
	must(t, j.Close(ctx))
}

// index is the whole index, but for the snapshots, which it counts.
func index(t *testing.T, e journal.Storage) (snapshots int, all []byte) {
	t.Helper()
	for kind := 1; kind < 256; kind++ {
		prefix := []byte{byte(kind)}
		must(t, e.Index.Scan(context.Background(), prefix, prefix, func(key, value []byte) error {
			if kind == 's' {
				snapshots++
				return nil
			}
			all = fmt.Appendf(all, "%q = %q\n", key, value)
			return nil
		}))
	}
	return snapshots, all
}
