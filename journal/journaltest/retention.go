package journaltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// testTrim has a storage remove blocks and keys for good, in bounded steps, big blocks
// too.
func testTrim(t *testing.T, open Reopener) {
	ctx := context.Background()
	e := open(t)
	const n = 700
	var blocks []journal.Block
	for i := range n {
		data := fmt.Appendf(nil, "block %d", i+1)
		if i%300 == 7 {
			data = append(data, make([]byte, 1<<20)...)
		}
		blocks = append(blocks, journal.Block{Log: "a", First: journal.Position(i/2 + 1), Sequence: uint64(i + 1),
			Data: data})
	}
	other := journal.Block{Log: "ab", First: 1, Sequence: 1, Data: []byte("other")}
	must(t, e.Log.Append(ctx, append(blocks, other)))
	there := func(log journal.LogName) (first, last uint64) {
		must(t, e.Log.Blocks(ctx, log, 0, func(b journal.Block) error {
			if last > 0 && b.Sequence != last+1 {
				t.Errorf("block %d follows on %d", b.Sequence, last)
			}
			if want := blocks[b.Sequence-1]; log == "a" &&
				(string(b.Data) != string(want.Data) || b.First != want.First) {
				t.Errorf("block %d is another one", b.Sequence)
			}
			if first == 0 {
				first = b.Sequence
			}
			last = b.Sequence
			return nil
		}))
		return first, last
	}
	for _, c := range []struct{ below, first uint64 }{{1, 1}, {9, 9}, {2, 9}, {650, 650}, {5000, n}} {
		steps := 0
		for more := true; more; steps++ {
			var err error
			more, err = e.Log.Trim(ctx, "a", c.below)
			must(t, err)
		}
		if c.below == 650 && steps < 2 {
			t.Errorf("%d blocks were removed in one step", n)
		}
		if first, last := there("a"); first != c.first || last != n {
			t.Errorf("below %d removed, there are %d to %d", c.below, first, last)
		}
		must(t, e.Close())
		e = open(t)
	}
	if first, last := there("ab"); first != 1 || last != 1 {
		t.Error("another log was trimmed")
	}
	if more, err := e.Log.Trim(ctx, "none", 9); more || err != nil {
		t.Errorf("trimming what is not there: %v, %v", more, err)
	}
	last, ok, err := e.Log.Last(ctx, "a")
	if err != nil || !ok || last.Sequence != n {
		t.Errorf("the last block is %+v, %v", last, err)
	}
	must(t, e.Index.Update(ctx, []journal.Pair{{Key: []byte("k1"), Value: []byte("1")},
		{Key: []byte("k2"), Value: []byte("2")}, {Key: []byte("k3"), Value: []byte("3")}}))
	must(t, e.Index.Delete(ctx, [][]byte{[]byte("k2"), []byte("never")}))
	must(t, e.Index.Delete(ctx, nil))
	must(t, e.Close())
	e = open(t)
	for key, want := range map[string]bool{"k1": true, "k2": false, "k3": true} {
		if _, ok, err := e.Index.Get(ctx, []byte(key)); ok != want || err != nil {
			t.Errorf("%s is there: %v, %v", key, ok, err)
		}
	}
	var got []string
	must(t, e.Index.Scan(ctx, []byte("k"), []byte("k"),
		func(k, _ []byte) error { got = append(got, string(k)); return nil }))
	if fmt.Sprint(got) != "[k1 k3]" {
		t.Errorf("a scan finds %v", got)
	}
	if e.Compact != nil {
		must(t, e.Compact(ctx))
	}
	must(t, e.Close())
}

// stateOf is what a guest would make of the events up to a version: it says of which
// entity and version it is.
func stateOf(key string, v journal.Version) string { return fmt.Sprintf("%s at %d", key, v) }

// Hydrate makes an entity's state as a host does: from its snapshot and the events
// behind it, or from all.
func Hydrate(j *commitlog.Journal, log journal.LogName, key string) (state string, v journal.Version, err error) {
	ctx := context.Background()
	if s, ok, err := j.Snapshot(ctx, log, key); err == nil && ok {
		v = s.Version
		if string(s.State) != stateOf(key, v) {
			return "", 0, fmt.Errorf("the snapshot of %s at %d says %q", key, v, s.State)
		}
	}
	at, err := j.Load(ctx, log, key, v, func(e *journal.Event) error {
		if e.Version != v+1 {
			return fmt.Errorf("version %d of %s follows %d", e.Version, key, v)
		}
		v = e.Version
		return nil
	})
	if err == nil && at != v {
		err = fmt.Errorf("%s is at %d, its events end at %d", key, at, v)
	}
	return stateOf(key, v), v, err
}

// testRetention does random things, retentions among them, and compares with what
// was done: every entity hydrates to its version, what is left of the log is dense,
// verification finds nothing, and a rebuilt index is byte-equal.
func testRetention(t *testing.T, open Reopener, seed uint64) {
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	ctx := context.Background()
	o := commitlog.Options{MaxBatchBytes: 700, MaxGroupCommits: 4, AnswerWindow: 1}
	j := openJournal(t, open, o)
	kept := 0
	versions := map[string]journal.Version{}
	var head journal.Position
	first := journal.Position(1)
	put := func(_ context.Context, key string, _ journal.Version) error {
		v := versions[key]
		j.PutSnapshot(ctx, "bank", key, journal.Snapshot{Version: v, Schema: 1, State: []byte(stateOf(key, v))})
		return nil
	}
	check := func() {
		t.Helper()
		if j.First("bank") != first || j.Head("bank") != head {
			t.Fatalf("seed %d: the log has %d to %d, want %d to %d", seed, j.First("bank"), j.Head("bank"), first, head)
		}
		for key, want := range versions {
			if _, v, err := Hydrate(j, "bank", key); err != nil || v != want {
				t.Fatalf("seed %d: %s hydrates to %d, want %d: %v", seed, key, v, want, err)
			}
		}
		next := first
		must(t, j.Read(ctx, "bank", 0, 0, func(e *journal.Event) error {
			if e.Position != next {
				t.Fatalf("seed %d: position %d, want %d", seed, e.Position, next)
			}
			next++
			return nil
		}))
		if next != head+1 {
			t.Fatalf("seed %d: the log ends at %d, want %d", seed, next-1, head)
		}
		CheckTypes(t, j, "bank")
		if first > 2 {
			if err := j.Read(ctx, "bank", first-2, 0, func(*journal.Event) error { return nil }); journal.KindOf(
				err) != journal.KindTrimmed || !strings.Contains(err.Error(), fmt.Sprint(first)) {
				t.Fatalf("seed %d: reading what is deleted: %v", seed, err)
			}
		}
	}
	_, err := Append(j, Commit("bank", "k0", 0, "first", 1))
	must(t, err)
	versions["k0"], head = 1, 1
	for i := range 240 {
		key := fmt.Sprint("k", rng.IntN(6+i/20))
		switch rng.IntN(30) {
		case 0, 1:
			before := first + journal.Position(rng.IntN(int(head-first)+2))
			want := journal.Retention{Before: before, Schema: 1, Cover: put, Force: true}
			if without := fmt.Sprint(rng.IntN(4)); rng.IntN(2) == 0 { // of some entities the events are kept apart
				want.Force, want.Cover = false, func(ctx context.Context, key string, v journal.Version) error {
					if strings.HasSuffix(key, without) {
						return errors.New("its state cannot be encoded")
					}
					return put(ctx, key, v)
				}
			}
			r, err := j.Retain(ctx, "bank", want)
			must(t, err)
			kept += r.Kept
			if r.Uncovered > 0 || r.Held > 0 || r.First > max(before, first) || r.First < first ||
				uint64(r.First-first) != r.Events {
				t.Fatalf("seed %d: a retention before %d does %+v", seed, before, r)
			}
			first = r.First
		case 2:
			must(t, j.Close(ctx))
			if rng.IntN(2) == 0 {
				e := open(t)
				was := dumpIndex(t, e)
				must(t, commitlog.Rebuild(ctx, e, nil))
				if got := dumpIndex(t, e); got != was {
					t.Fatalf("seed %d: the index was\n%s\nrebuilt it is\n%s", seed, was, got)
				}
				must(t, e.Close())
			}
			e := open(t)
			report, err := verify.Run(ctx, e, verify.Options{})
			must(t, err)
			if report.Found > 0 {
				t.Fatalf("seed %d: verify finds %v", seed, report.Problems)
			}
			must(t, e.Close())
			j = openJournal(t, open, o)
			check()
		case 3:
			if versions[key] > 0 {
				must(t, put(ctx, key, 0))
			}
		default:
			n := rng.IntN(4)
			r, err := Append(j, Mixed(Commit("bank", key, versions[key], fmt.Sprint("c", i), n)))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			versions[key], head = r.Version(), r.Last()
		}
		if i%20 == 0 {
			check()
		}
	}
	must(t, j.Close(ctx))
	t.Logf("events of %d entities were kept apart", kept)
}

// dumpIndex is every byte of an index but snapshots.
func dumpIndex(t testing.TB, e journal.Storage) string {
	t.Helper()
	var out strings.Builder
	for _, kind := range []byte("acefktvyz") {
		must(t, e.Index.Scan(context.Background(), []byte{kind}, []byte{kind}, func(k, v []byte) error {
			fmt.Fprintf(&out, "%x %x\n", k, v)
			return nil
		}))
	}
	return out.String()
}
