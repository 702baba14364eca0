package journaltest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// Reopener is how the suite gets a storage, closes it and opens it again on the
// same bytes. The first call makes an empty one.
type Reopener func(t testing.TB) journal.Storage

// Commit makes a small commit: n events of an entity that is at version at.
func Commit(log journal.LogName, key string, at journal.Version, id string, n int) *journal.Commit {
	c := &journal.Commit{
		Log: log, Expected: at,
		Command: journal.Command{
			ID: journal.CommandID(id), Type: "deposit", Key: key, Data: []byte(`{"amount":1}`),
			Metadata: []byte{}, Time: 42, Fuel: 7, Reply: []byte("reply to " + id),
		},
	}
	for i := range n {
		c.Events = append(c.Events, journal.NewEvent{Type: "Deposited", Data: fmt.Appendf(nil, `{"id":%q,"n":%d}`, id, i)})
	}
	return c
}

// Mixed gives the events of a commit types that depend on its id: some that many have, and
// some that few do.
func Mixed(c *journal.Commit) *journal.Commit {
	for i := range c.Events {
		h := fnv.New32a()
		fmt.Fprint(h, c.Command.ID, i)
		n := h.Sum32() % 64
		c.Events[i].Type = fmt.Sprint("Type", bits.Len32(n)) // a half, a quarter …
	}
	return c
}

// CheckTypes holds the event catalogue of a log to what can be read of it.
func CheckTypes(t testing.TB, j *commitlog.Journal, log journal.LogName) {
	t.Helper()
	var want []journal.EventType
	add := func(e *journal.Event) error {
		i, ok := slices.BinarySearchFunc(want, e.Type,
			func(x journal.EventType, name string) int { return strings.Compare(x.Type, name) })
		if !ok {
			want = slices.Insert(want, i, journal.EventType{Type: e.Type, First: e.Position})
		}
		want[i].Count++
		want[i].First, want[i].Last = min(want[i].First, e.Position), max(want[i].Last, e.Position)
		return nil
	}
	err := eachKept(j, log, add)
	if err == nil {
		err = j.Read(context.Background(), log, 0, 0, add)
	}
	if err != nil {
		t.Errorf("%s: %v", log, err)
		return
	}
	got, err := j.EventTypes(context.Background(), log)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s has the event types %v, %v, want %v", log, got, err, want)
	}
}

// eachKept yields the events that the latest retention of a log has kept apart.
func eachKept(j *commitlog.Journal, log journal.LogName, yield func(*journal.Event) error) error {
	ctx := context.Background()
	var all []journal.Trimmed
	err := j.AllTrimmed(ctx, log, "", func(t journal.Trimmed) error {
		if t.Kept > 0 {
			all = append(all, t)
		}
		return nil
	})
	for _, t := range all {
		if err == nil {
			err = j.Entity(ctx, log, t.Key, t.Kept-1, int(t.Floor-t.Kept+1), yield)
		}
	}
	return err
}

// Noise is n bytes that no codec makes fewer, the same for the same seed.
func Noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24), seed))).Read(b)
	return b
}

// Append hands c in and waits for its receipt.
func Append(j *commitlog.Journal, c *journal.Commit) (journal.Receipt, error) {
	type result struct {
		r   journal.Receipt
		err error
	}
	done := make(chan result, 1)
	if err := j.Append(context.Background(), c,
		func(r journal.Receipt, err error) { done <- result{r, err} }); err != nil {
		return journal.Receipt{}, err
	}
	got := <-done
	return got.r, got.err
}

// Run is the suite that every storage has to pass.
func Run(t *testing.T, open func(t *testing.T) Reopener) {
	t.Run("storage", func(t *testing.T) { testStorage(t, open(t)) })
	t.Run("journal", func(t *testing.T) { testJournal(t, open(t)) })
	t.Run("expected", func(t *testing.T) { testExpected(t, open(t)) })
	t.Run("repeat", func(t *testing.T) { testAnswers(t, open(t)) })
	t.Run("snapshots", func(t *testing.T) { testSnapshots(t, open(t)) })
	t.Run("rebuild", func(t *testing.T) { testRebuild(t, open(t)) })
	t.Run("model", func(t *testing.T) { testModel(t, open(t), rand.Uint64()) })
	t.Run("trim", func(t *testing.T) { testTrim(t, open(t)) })
	t.Run("retention", func(t *testing.T) { testRetention(t, open(t), rand.Uint64()) })
	t.Run("damaged index", func(t *testing.T) { testDamagedIndex(t, open(t)) })
	t.Run("concurrent", func(t *testing.T) { testConcurrent(t, open(t)) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testStorage(t *testing.T, open Reopener) {
	ctx := context.Background()
	e := open(t)
	block := func(log journal.LogName, first journal.Position, seq uint64) journal.Block {
		return journal.Block{Log: log, First: first, Sequence: seq, Data: fmt.Appendf(nil, "%s/%d/%d", log, first, seq)}
	}
	must(t, e.Log.Append(ctx, []journal.Block{block("a", 1, 1), block("a", 5, 2), block("ab", 1, 1)}))
	must(t, e.Log.Append(ctx, []journal.Block{block("a", 5, 3), block("a", 9, 4)}))
	for range 2 { // before and after opening again
		for _, c := range []struct {
			from journal.Position
			want string
		}{{0, "[1 2 3 4]"}, {1, "[1 2 3 4]"}, {4, "[1 2 3 4]"}, {5, "[2 3 4]"}, {8, "[2 3 4]"}, {9, "[4]"},
			{99, "[4]"}} {
			var got []uint64
			must(t, e.Log.Blocks(ctx, "a", c.from, func(b journal.Block) error {
				if want := block("a", b.First, b.Sequence); !bytes.Equal(b.Data, want.Data) || b.Log != "a" {
					t.Errorf("block %d is %s %q", b.Sequence, b.Log, b.Data)
				}
				got = append(got, b.Sequence)
				return nil
			}))
			if fmt.Sprint(got) != c.want {
				t.Errorf("blocks from %d are %v, want %s", c.from, got, c.want)
			}
		}
		last, ok, err := e.Log.Last(ctx, "a")
		if err != nil || !ok || last.Sequence != 4 {
			t.Errorf("Last is %+v, %v, %v", last, ok, err)
		}
		if _, ok, err := e.Log.Last(ctx, "b"); ok || err != nil {
			t.Errorf("an empty log has a last block, or %v", err)
		}
		names, err := e.Log.Logs(ctx)
		if err != nil || fmt.Sprint(names) != "[a ab]" {
			t.Errorf("Logs are %v, %v", names, err)
		}
		stop := errors.New("enough")
		if err := e.Log.Blocks(ctx, "a", 0, func(journal.Block) error { return stop }); err != stop {
			t.Errorf("the yield's error came back as %v", err)
		}
		must(t, e.Close())
		e = open(t)
	}
	pairs := []journal.Pair{{Key: []byte("k1"), Value: []byte("1")}, {Key: []byte("k2"), Value: []byte("2")},
		{Key: []byte("l"), Value: []byte{}}}
	must(t, e.Index.Update(ctx, pairs))
	must(t, e.Index.Update(ctx, []journal.Pair{{Key: []byte("k1"), Value: []byte("one")}}))
	v, ok, err := e.Index.Get(ctx, []byte("k1"))
	if err != nil || !ok || string(v) != "one" {
		t.Errorf("k1 is %q, %v, %v", v, ok, err)
	}
	for key, want := range map[string]bool{"k1": true, "k": false, "k11": false} {
		if has, err := e.Index.Has(ctx, []byte(key)); has != want || err != nil {
			t.Errorf("Has %s: %v, %v", key, has, err)
		}
	}
	if _, ok, err := e.Index.Get(ctx, []byte("k")); ok || err != nil {
		t.Errorf("k is there, or %v", err)
	}
	var got []string
	must(t, e.Index.Scan(ctx, []byte("k"), []byte("k2"), func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		return nil
	}))
	if fmt.Sprint(got) != "[k2=2]" {
		t.Errorf("scan gives %v", got)
	}
	key, ok, err := e.Index.Last(ctx, []byte("k"))
	if err != nil || !ok || string(key) != "k2" {
		t.Errorf("Last of k is %q, %v, %v", key, ok, err)
	}
	if _, ok, _ := e.Index.Last(ctx, []byte("a")); ok {
		t.Error("Last of an absent prefix is there")
	}
	must(t, e.Index.DeleteRange(ctx, []byte("k1"), []byte("l"))) // the end is not in it
	for key, want := range map[string]bool{"k1": false, "k2": false, "l": true} {
		if has, err := e.Index.Has(ctx, []byte(key)); has != want || err != nil {
			t.Errorf("after a range was deleted, Has %s: %v, %v", key, has, err)
		}
	}
	must(t, e.Index.Update(ctx, pairs))
	must(t, e.Index.Clear(ctx))
	if _, ok, _ := e.Index.Get(ctx, []byte("k2")); ok {
		t.Error("k2 survived Clear")
	}
	must(t, e.Close())
}

func openJournal(t testing.TB, open Reopener, o commitlog.Options) *commitlog.Journal {
	t.Helper()
	j, err := commitlog.Open(context.Background(), open(t), o)
	must(t, err)
	return j
}

// versions loads an entity and returns its versions and whether its events are those of Commit.
func load(
	t testing.TB, j *commitlog.Journal, log journal.LogName, key string, after journal.Version,
) (seen []journal.Version, v journal.Version) {
	t.Helper()
	v, err := j.Load(context.Background(), log, key, after, func(e *journal.Event) error {
		if e.CommandTime != 42 || e.CommandFuel != 7 {
			t.Errorf("%s v%d is of a command at %d that took %d", key, e.Version, e.CommandTime, e.CommandFuel)
		}
		seen = append(seen, e.Version)
		return nil
	})
	must(t, err)
	return seen, v
}

// testExpected appends to entities that memory knows nothing of.
func testExpected(t *testing.T, open Reopener) {
	ctx := context.Background()
	j := openJournal(t, open, commitlog.Options{})
	_, err := Append(j, Commit("bank", "alice", 0, "c1", 3))
	must(t, err)
	const highest = ^journal.Version(0)
	for _, c := range []struct {
		key      string
		expected journal.Version
		at       journal.Version // what the error tells
	}{{"alice", 0, 3}, {"alice", 1, 3}, {"alice", 2, 3}, {"alice", 4, 3}, {"alice", highest - 1, 3},
		{"alice", highest, 3}, {"bob", 1, 0}, {"bob", highest, 0}} {
		must(t, j.Close(ctx))
		j = openJournal(t, open, commitlog.Options{})
		_, err := Append(j, Commit("bank", c.key, c.expected, "c2", 1))
		if want := fmt.Sprintf("entity %q is at version %d, not at %d", c.key, c.at,
			c.expected); journal.KindOf(err) != journal.KindVersion || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, expected at %d: %v, want %s", c.key, c.expected, err, want)
		}
	}
	for key, v := range map[string]journal.Version{"alice": 3, "bob": 0} {
		must(t, j.Close(ctx))
		j = openJournal(t, open, commitlog.Options{})
		r, err := Append(j, Commit("bank", key, v, "to "+key, 1))
		must(t, err)
		if r.Version() != v+1 {
			t.Errorf("%s came to version %d from %d", key, r.Version(), v)
		}
	}
	must(t, j.Close(ctx))
}

func testJournal(t *testing.T, open Reopener) {
	ctx := context.Background()
	j := openJournal(t, open, commitlog.Options{})
	r, err := Append(j, Commit("bank", "alice", 0, "c1", 2))
	must(t, err)
	if !r.Valid() || r.First() != 1 || r.Last() != 2 || r.Version() != 2 || r.Events() != 2 || r.CommandID() != "c1" {
		t.Errorf("receipt of c1: %+v", r)
	}
	r, err = Append(j, Commit("bank", "bob", 0, "c2", 0))
	must(t, err)
	if r.First() != 3 || r.Last() != 2 || r.Version() != 0 {
		t.Errorf("receipt of c2, which has no events: %+v", r)
	}
	if _, err := Append(j, Commit("bank", "alice", 1, "c3", 1)); journal.KindOf(err) != journal.KindVersion {
		t.Errorf("a wrong expected version gives %v", err)
	}
	if _, err := Append(j, Commit("bank", "bob", 0, "c1", 1)); journal.KindOf(err) != journal.KindDuplicateID {
		t.Errorf("an id used twice gives %v", err)
	}
	if _, err := Append(j, Commit("bank", "", 0, "c4", 1)); journal.KindOf(err) != journal.KindInvalid {
		t.Errorf("an empty key gives %v", err)
	}
	for range 2 { // before and after opening again
		if seen, v := load(t, j, "bank", "alice", 0); fmt.Sprint(seen) != "[1 2]" || v != 2 {
			t.Errorf("alice has %v, %d", seen, v)
		}
		if seen, v := load(t, j, "bank", "alice", 1); fmt.Sprint(seen) != "[2]" || v != 2 {
			t.Errorf("alice after 1 has %v, %d", seen, v)
		}
		var positions []journal.Position
		must(t, j.Read(ctx, "bank", 0, 0, func(e *journal.Event) error {
			if e.ContentType != "application/json" || e.CommandID != "c1" || e.Time == 0 || e.CommandTime != 42 ||
				e.CommandFuel != 7 {
				t.Errorf("event %+v", e)
			}
			positions = append(positions, e.Position)
			return nil
		}))
		if fmt.Sprint(positions) != "[1 2]" || j.Head("bank") != 2 {
			t.Errorf("the log has %v, head %d", positions, j.Head("bank"))
		}
		var ids []journal.CommandID
		must(t, j.Commits(ctx, "bank", 0,
			func(c *journal.Committed) error { ids = append(ids, c.Command.ID); return nil }))
		if fmt.Sprint(ids) != "[c1 c2]" {
			t.Errorf("commits are %v", ids)
		}
		must(t, j.Close(ctx))
		j = openJournal(t, open, commitlog.Options{})
	}
	if _, err := Append(j, Commit("bank", "alice", 2, "c5", 1)); err != nil {
		t.Errorf("append after opening again: %v", err)
	}
	must(t, j.Close(ctx))
	if _, err := Append(j, Commit("bank", "alice", 3, "c6", 1)); journal.KindOf(err) != journal.KindClosed {
		t.Errorf("append after Close gives %v", err)
	}
}

func testAnswers(t *testing.T, open Reopener) {
	ctx := context.Background()
	now := journal.UnixNano(1e18)
	o := commitlog.Options{Clock: func() journal.UnixNano { return now }}
	j := openJournal(t, open, o)
	for i := range 20 {
		_, err := Append(j, Commit("bank", fmt.Sprint("k", i%3), journal.Version(i/3), fmt.Sprint("c", i), 1))
		must(t, err)
	}
	for i := range 2 {
		for i := range 20 {
			id := journal.CommandID(fmt.Sprint("c", i))
			found, err := j.Answer(ctx, "bank", id, func(c *journal.Committed, r journal.Receipt, err error) {
				must(t, err)
				if string(c.Command.Reply) != "reply to "+string(id) || r.CommandID() != id || int(r.First()) != i+1 ||
					int(r.Version()) != i/3+1 {
					t.Errorf("answer of %s: %+v %+v", id, c, r)
				}
			})
			if !found || err != nil {
				t.Errorf("answer of %s: %v, %v", id, found, err)
			}
		}
		// An id that was asked for in vain can be used once, whenever one tries again.
		asked := Commit("bank", fmt.Sprint("asked", i), 0, fmt.Sprint("asked", i), 1)
		for try := range 3 {
			found, err := j.Answer(ctx, "bank", asked.Command.ID, func(*journal.Committed, journal.Receipt, error) {})
			if found != (try > 0) || err != nil {
				t.Errorf("try %d of %s: %v, %v", try, asked.Command.ID, found, err)
			}
			if _, err := Append(j, asked); (err == nil) != (try == 0) || try > 0 &&
				journal.KindOf(err) != journal.KindDuplicateID {
				t.Errorf("try %d of %s: %v", try, asked.Command.ID, err)
			}
			for try == 1 && j.Stats().Pending > 0 { // the last one finds it in the index
				runtime.Gosched()
			}
		}
		for _, log := range []journal.LogName{"bank", "other"} {
			if found, err := j.Answer(ctx, log, "never", nil); found || err != nil {
				t.Errorf("an id never used in %s: %v, %v", log, found, err)
			}
		}
		must(t, j.Close(ctx))
		j = openJournal(t, open, o)
	}
	now += journal.UnixNano(25 * 3600 * 1e9)
	if found, err := j.Answer(ctx, "bank", "c1", nil); found || err != nil {
		t.Errorf("an id outside the window: %v, %v", found, err)
	}
	must(t, j.Close(ctx))
}

// testModel compares random operations with a naive model, across reopenings.
func testModel(t *testing.T, open Reopener, seed uint64) {
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx := context.Background()
	j := openJournal(t, open, commitlog.Options{MaxBatchBytes: 512})
	versions := map[string]journal.Version{}
	heads := map[journal.LogName]journal.Position{}
	var ids []string
	for i := range 400 {
		log := journal.LogName(fmt.Sprint("log", rng.IntN(3)))
		key := fmt.Sprint("key", rng.IntN(8))
		at := versions[string(log)+"/"+key]
		switch rng.IntN(10) {
		case 0:
			must(t, j.Close(ctx))
			j = openJournal(t, open, commitlog.Options{MaxBatchBytes: 512})
		case 1:
			if _, err := Append(j, Commit(log, key, at+1, fmt.Sprint("wrong", i), 1)); journal.KindOf(
				err) != journal.KindVersion {
				t.Fatalf("seed %d: version %d of an entity at %d: %v", seed, at+1, at, err)
			}
		case 2:
			if len(ids) > 0 {
				id := ids[rng.IntN(len(ids))]
				if _, err := Append(j, Commit(log, key, at, id, 1)); journal.KindOf(err) != journal.KindDuplicateID {
					// Ids are per log: it may be another log's.
					if err != nil {
						t.Fatalf("seed %d: id %s again: %v", seed, id, err)
					}
					versions[string(log)+"/"+key]++
					heads[log]++
				}
			}
		case 3:
			seen, v := load(t, j, log, key, at/2)
			if v != max(at, at/2) || len(seen) != int(at-at/2) {
				t.Fatalf("seed %d: entity at %d loads %v, %d", seed, at, seen, v)
			}
		default:
			n := rng.IntN(4)
			id := fmt.Sprint("c", i)
			r, err := Append(j, Commit(log, key, at, id, n))
			if err != nil || r.Version() != at+journal.Version(n) || r.Last() != heads[log]+journal.Position(n) {
				t.Fatalf("seed %d: %+v, %v", seed, r, err)
			}
			versions[string(log)+"/"+key] = r.Version()
			heads[log] = r.Last()
			ids = append(ids, id)
		}
	}
	must(t, j.Close(ctx))
	e := open(t)
	report, err := verify.Run(ctx, e, verify.Options{})
	must(t, err)
	if len(report.Problems) > 0 {
		t.Errorf("seed %d: verify finds %v", seed, report.Problems)
	}
	for log, head := range heads {
		if got := report.Logs[log].Head; got != head {
			t.Errorf("seed %d: %s ends at %d, want %d", seed, log, got, head)
		}
	}
	must(t, e.Close())
}

// testConcurrent has many goroutines append to their own entities at once, with
// a journal that is short of room.
func testConcurrent(t *testing.T, open Reopener) {
	ctx := context.Background()
	j := openJournal(t, open, commitlog.Options{MaxPendingCommits: 20, MaxGroupCommits: 7, VersionCache: 3})
	const writers, each = 16, 40
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			key := fmt.Sprint("key", w)
			var answered sync.WaitGroup
			last := journal.Position(0)
			for i := range each {
				answered.Add(1)
				err := j.Append(ctx, Commit("bank", key, journal.Version(i), fmt.Sprint(w, "-", i), 1),
					func(r journal.Receipt, err error) {
						if err != nil || r.Version() != journal.Version(i+1) || r.First() <= last {
							t.Errorf("writer %d, commit %d: %+v, %v", w, i, r, err)
						}
						last = r.First()
						answered.Done()
					})
				if err != nil {
					t.Error(err)
					answered.Done()
				}
				if i%10 == 9 {
					if _, v := load(t, j, "bank", key, 0); int(v) != i+1 {
						t.Errorf("writer %d is at %d after %d commits", w, v, i+1)
					}
				}
			}
			settled := make(chan journal.Receipt, 1)
			j.Settle("bank", key, func(r journal.Receipt, err error) {
				if err != nil {
					t.Error(err)
				}
				settled <- r
			})
			if r := <-settled; r.Version() != each {
				t.Errorf("writer %d settles at %d", w, r.Version())
			}
			answered.Wait()
		})
	}
	all.Wait()
	must(t, j.Close(ctx))
}
