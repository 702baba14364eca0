package commitlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// appends is a log store that only takes blocks.
type appends struct {
	journal.LogStore
	groups [][]journal.Block
	fail   error
}

func (a *appends) Append(_ context.Context, blocks []journal.Block) error {
	a.groups = append(a.groups, blocks)
	return a.fail
}

// testIndex is an index store whose entries are written and looked up.
type testIndex struct {
	journal.IndexStore
	entries map[string]string
	fail    error
}

func (x *testIndex) Get(_ context.Context, key []byte) ([]byte, bool, error) {
	v, ok := x.entries[string(key)]
	return []byte(v), ok, nil
}

func (x *testIndex) Update(_ context.Context, pairs []journal.Pair) error {
	for _, p := range pairs {
		x.entries[string(p.Key)] = string(p.Value)
	}
	return x.fail
}

func testOverlay(o Options) *overlay {
	o.Clock = func() journal.UnixNano { return 1000 }
	o = o.withDefaults()
	return newOverlay(&o)
}

// handIn hands in a commit of one event, as Append does.
func handIn(o *overlay, log journal.LogName, key string, at journal.Version, id string,
	done func(journal.Receipt, error)) *pending {
	c := &journal.Commit{Log: log, Expected: at, Command: journal.Command{ID: journal.CommandID(id), Key: key},
		Events: []journal.NewEvent{{Type: "Deposited", Data: []byte(id)}}}
	p := &pending{commit: c, size: format.CommitBytes(c, 0), done: done}
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.log(log)
	o.queue.take(&s.queue, 1, int64(p.size))
	o.hold(s, p)
	o.queue.push(&s.queue, p)
	s.size.writing += int64(p.size)
	o.flying++
	return p
}

// commitAll runs a committer until it has written all that was handed in, and returns the groups.
func commitAll(o *overlay, log journal.LogStore) (groups []*group) {
	o.mu.Lock()
	o.closing = true
	o.mu.Unlock()
	out := make(chan *group, 100)
	(&committer{log: log, overlay: o, maker: format.BatchMaker{Codec: journal.CodecNone}, out: out}).run()
	for g := range out {
		groups = append(groups, g)
	}
	return groups
}

func TestCommitterWritesAGroupWithOneAppend(t *testing.T) {
	o, log := testOverlay(Options{}), &appends{}
	a1, b1, a2 := handIn(o, "a", "k", 0, "a1", nil), handIn(o, "b", "k", 0, "b1", nil),
		handIn(o, "a", "k", 1, "a2", nil)
	groups := commitAll(o, log)
	if len(groups) != 1 || len(log.groups) != 1 || len(log.groups[0]) != 2 {
		t.Fatalf("%d groups and %d appends", len(groups), len(log.groups))
	}
	for i, want := range []string{"a1 a2", "b1"} {
		got := ""
		batch, err := format.ReadBatch(log.groups[0][i].Data, func(c *journal.Committed) error {
			got += " " + string(c.Command.ID)
			return nil
		})
		if err != nil || got[1:] != want || batch.Sequence != 1 || batch.First != 1 || batch.Time != 1000 {
			t.Errorf("batch %d has%s: %+v, %v", i, got, batch, err)
		}
	}
	hash := format.HashOf(log.groups[0][0].Data)
	if got := o.logs["a"].origin; got != hash.Stamp() {
		t.Errorf("the log's origin is %x, its first batch has %x", got, hash.Stamp())
	}
	for p, first := range map[*pending]journal.Position{a1: 1, a2: 2, b1: 1} {
		if r := p.receipt(); !p.durable || !r.Valid() || r.First() != first || r.Origin() != p.log.origin {
			t.Errorf("%s is durable: %v, receipt %+v", p.commit.Command.ID, p.durable, r)
		}
	}
	if o.logs["a"].head != 2 || o.logs["b"].head != 1 || o.stats.Syncs != 1 || o.stats.Commits != 3 {
		t.Errorf("heads %d and %d, %+v", o.logs["a"].head, o.logs["b"].head, o.stats)
	}
	if held, _, _ := o.eventsOf("a", "k"); len(held) != 2 || held[1].Position != 2 {
		t.Errorf("the overlay gives up events before they are indexed: %v", held)
	}
}

func TestCommitterCutsBatches(t *testing.T) {
	o, log := testOverlay(Options{MaxBatchBytes: 400}), &appends{}
	for i := range 9 {
		handIn(o, "a", "k", journal.Version(i), fmt.Sprint("c", i), nil)
	}
	commitAll(o, log)
	var before journal.Batch
	commits := uint32(0)
	for _, block := range slices.Concat(log.groups...) {
		b, err := format.ReadBatch(block.Data, nil)
		if err != nil || b.Follows(&before) != "" {
			t.Errorf("batch %d: %v, %s", block.Sequence, err, b.Follows(&before))
		}
		before = b
		commits += b.Commits
	}
	if before.Sequence < 3 || commits != 9 {
		t.Errorf("%d batches of %d commits", before.Sequence, commits)
	}
}

func TestCommitterWritesNothingAfterAFailure(t *testing.T) {
	broken := errors.New("the disk is gone")
	o, log := testOverlay(Options{MaxGroupCommits: 1}), &appends{fail: broken}
	handIn(o, "a", "k", 0, "c1", nil)
	handIn(o, "a", "k", 1, "c2", nil)
	groups := commitAll(o, log)
	if len(groups) != 2 || len(log.groups) != 1 {
		t.Fatalf("%d groups and %d appends", len(groups), len(log.groups))
	}
	for _, g := range groups {
		if !errors.Is(g.err, broken) || g.commits[0].durable {
			t.Errorf("group of %s: %v", g.commits[0].commit.Command.ID, g.err)
		}
	}
	if !errors.Is(o.err(), broken) || len(o.logs["a"].entities) != 0 || o.queue.commits != 0 || o.queue.bytes != 0 {
		t.Errorf("after the failure the overlay has %d entities, %d commits: %v", len(o.logs["a"].entities),
			o.queue.commits, o.err())
	}
	select {
	case <-o.failed:
	default:
		t.Error("nobody is told of the failure")
	}
}

func TestCompleterTellsSendersInOrder(t *testing.T) {
	o := testOverlay(Options{})
	var told []string
	tell := func(id string) func(journal.Receipt, error) {
		return func(r journal.Receipt, err error) {
			told = append(told, fmt.Sprint(id, r.Valid(), journal.KindOf(err) == journal.KindFailed && err != nil))
		}
	}
	p := handIn(o, "a", "k", 0, "c1", tell("c1 "))
	p.waiters = append(p.waiters, func(w *pending, err error) { told = append(told, fmt.Sprint("w1 ", w == p, err)) })
	handIn(o, "a", "k", 1, "c2", tell("c2 "))
	in, out := make(chan *group, 2), make(chan *group, 2)
	in <- commitAll(o, &appends{})[0]
	in <- &group{err: errors.New("broken"), commits: []*pending{{commit: p.commit, done: tell("c3 ")}}}
	close(in)
	o.mu.Lock()
	o.flying++ // of c3
	o.mu.Unlock()
	(&completer{overlay: o, in: in, out: out}).run()
	want := []string{"c1 true false", "w1 true <nil>", "c2 true false", "c3 false true"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	n := 0
	for range out { // which is closed
		n++
	}
	if n != 2 || o.flying != 0 {
		t.Errorf("%d groups went to the indexer, %d commits are on their way", n, o.flying)
	}
}

// indexAll runs an indexer over groups.
func indexAll(o *overlay, index journal.IndexStore, groups ...*group) (*typeCuts, []format.PromisedDay) {
	in := make(chan *group, len(groups))
	for _, g := range groups {
		o.told(g)
		in <- g
	}
	close(in)
	cuts := &typeCuts{}
	days := &answers{index: index, window: o.opt.AnswerWindow, clock: o.opt.Clock}
	(&indexer{index: index, overlay: o, cuts: cuts, types: newTypeCounter(context.Background(), index), in: in,
		answers: days}).run()
	return cuts, days.days()
}

func TestIndexerTakesCommitsOutOfTheOverlay(t *testing.T) {
	o, index := testOverlay(Options{}), &testIndex{entries: map[string]string{}}
	handIn(o, "a", "k", 0, "c1", nil)
	handIn(o, "a", "k", 1, "c2", nil)
	groups := commitAll(o, &appends{})
	o.mu.Lock()
	o.snapshots.add(&held{entityID{"a", "k"}, journal.Snapshot{Version: 1, State: []byte("one")}})
	o.ready(o.snapshots.latest[entityID{"a", "k"}])
	o.mu.Unlock()
	cuts, days := indexAll(o, index, groups...)

	s := o.logs["a"]
	if len(s.entities) != 0 || len(s.ids) != 0 || o.queue.commits != 0 || o.queue.bytes != 0 || s.indexed != 2 {
		t.Errorf("the overlay has %d entities and %d ids, and %d commits wait; indexed up to %d", len(s.entities),
			len(s.ids), o.queue.commits, s.indexed)
	}
	if v, known := o.knownVersion(s, "k"); !known || v != 2 {
		t.Errorf("the entity is at version %d (known: %v)", v, known)
	}
	if o.snapshots.bytes != 0 || o.stats.Snapshots != 1 {
		t.Errorf("%d bytes of snapshots wait, %d were written", o.snapshots.bytes, o.stats.Snapshots)
	}
	for _, key := range [][]byte{
		format.EntityKey(format.EntityPrefix("a", "k"), 1), format.EntityKey(format.EntityPrefix("a", "k"), 2),
		format.AnswerKey("a", "c1", format.DayOf(1000)), format.AnswerKey("a", "c2", format.DayOf(1000)),
		format.CheckpointKey("a"), format.SnapshotKey("a", "k"), format.TypeKey("a", "Deposited"), format.CountKey("a"),
	} {
		if index.entries[string(key)] == "" {
			t.Errorf("the index lacks %q", key)
		}
	}
	if len(days) != 1 || days[0].Day != format.DayOf(1000) {
		t.Errorf("the index has answers of %v", days)
	}
	if err := cuts.ask(&typeCut{log: s}); journal.KindOf(err) != journal.KindClosed {
		t.Errorf("a cut that is asked for too late: %v", err)
	}
}

func TestIndexerThatFailsKeepsTheOverlay(t *testing.T) {
	broken := errors.New("the disk is gone")
	o, index := testOverlay(Options{}), &testIndex{entries: map[string]string{}, fail: broken}
	handIn(o, "a", "k", 0, "c1", nil)
	indexAll(o, index, commitAll(o, &appends{})...)
	if held, _, _ := o.eventsOf("a", "k"); len(held) != 1 || !errors.Is(o.err(), broken) {
		t.Errorf("the overlay has %d events: %v", len(held), o.err())
	}
}
