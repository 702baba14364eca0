package commitlog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// counted waits until the bytes of a log are known, and holds them to what is read.
func counted(t *testing.T, j *commitlog.Journal, log journal.LogName, when string) {
	t.Helper()
	for {
		bytes, known := j.LogBytes(log)
		if known {
			size, err := j.Measure(t.Context(), log, nil)
			if err != nil || uint64(bytes) != size.Bytes {
				t.Fatalf("%s: %s has %d bytes, counted are %d: %v", when, log, size.Bytes, bytes, err)
			}
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("%s: the bytes of %s are not known", when, log)
		}
		runtime.Gosched()
	}
}

// Whatever happens, the bytes of a log are those that it has: after retentions, crashes
// that lose the end of the index, and rebuilt indexes.
func TestBytesOfALog(t *testing.T) {
	ctx := context.Background()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	m := journaltest.NewMemory()
	r := newRetainer(t, m.Storage())
	for round := range 60 {
		if err := r.add(rng.IntN(12)); err != nil {
			t.Fatal(err)
		}
		when := fmt.Sprintf("round %d", round)
		if head := r.Head("bank"); rng.IntN(3) == 0 && head > 5 {
			journaltest.Advance(r.now, journal.UnixNano(25*time.Hour))
			if _, err := r.Retain(ctx, "bank", journal.Retention{Before: head - journal.Position(rng.IntN(5)),
				Schema: 1, Cover: r.cover(1)}); err != nil {
				t.Fatal(err)
			}
			when += " after a retention"
		}
		counted(t, r.Journal, "bank", when)
		disk := m.CrashClone(rng.IntN(4))
		journaltest.Close(t, r.Journal)
		if rng.IntN(3) == 0 {
			disk = m.CrashClone(0)
		}
		if rng.IntN(6) == 0 {
			if err := commitlog.Rebuild(ctx, disk.Storage(), nil); err != nil {
				t.Fatal(err)
			}
			when += " and a rebuilding"
		}
		if rng.IntN(4) == 0 { // an index of a version that did not count
			if err := disk.Index().Delete(ctx, [][]byte{append([]byte{'b', 0, 4}, "bank"...)}); err != nil {
				t.Fatal(err)
			}
			when += " without a count"
		}
		m = disk
		var err error
		if r.Journal, err = commitlog.Open(ctx, m.Storage(),
			commitlog.Options{MaxGroupCommits: 1, Clock: journaltest.ClockAt(r.now)}); err != nil {
			t.Fatal(err)
		}
		counted(t, r.Journal, "bank", when+" and a new start")
	}
	journaltest.Close(t, r.Journal)
}

// A log that is counted while a retention cuts it is counted right.
func TestBytesAreCountedBesideARetention(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	r := newRetainer(t, m.Storage())
	if err := r.add(200); err != nil {
		t.Fatal(err)
	}
	journaltest.Close(t, r.Journal)
	for i := range journal.Position(20) {
		disk := m.CrashClone(0)
		if err := disk.Index().Delete(ctx, [][]byte{append([]byte{'b', 0, 4}, "bank"...)}); err != nil {
			t.Fatal(err)
		}
		journaltest.Advance(r.now, journal.UnixNano(25*time.Hour))
		j, err := commitlog.Open(ctx, disk.Storage(), commitlog.Options{Clock: journaltest.ClockAt(r.now)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Retain(ctx, "bank", journal.Retention{Before: 50 + i, Force: true}); err != nil {
			t.Fatal(err)
		}
		counted(t, j, "bank", "after a retention")
		journaltest.Close(t, j)
	}
}

// What is on its way to the disk counts, so that a flood cannot hide in it.
func TestBytesOnTheirWayCount(t *testing.T) {
	j, busy, free, appends := held(t, commitlog.Options{})
	for i := range 3 {
		if err := handIn(t, t.Context(), j, "bank", i); err != nil {
			t.Fatal(err)
		}
	}
	<-busy
	if bytes, known := j.LogBytes("bank"); bytes == 0 || !known {
		t.Errorf("three commits on their way have %d bytes, %v", bytes, known)
	}
	free()
	appends()
	if bytes, _ := j.LogBytes("none"); bytes != 0 {
		t.Errorf("a log that is not there has %d bytes", bytes)
	}
}

// Logs take turns by bytes: a commit of many batches' size waits until others have
// been given as much, and what is small does not share its write.
func TestTurnsGoByBytes(t *testing.T) {
	const small = 300
	j, busy, free, appends := held(t, commitlog.Options{MaxBatchBytes: 1 << 10, MaxGroupBytes: 16 << 10,
		MaxGroupCommits: 4, Codec: journal.CodecNone})
	if err := handIn(t, t.Context(), j, "first", 0); err != nil {
		t.Fatal(err)
	}
	<-busy
	for i := range 3 {
		big := journaltest.Commit("big", fmt.Sprint("k", i), 0, fmt.Sprint("c", i), 1)
		big.Events[0].Data = make([]byte, 12<<10)
		if err := j.Append(t.Context(), big, func(journal.Receipt, error) {}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range small {
		if err := handIn(t, t.Context(), j, "small", i); err != nil {
			t.Fatal(err)
		}
	}
	free()
	bytes := map[journal.LogName]int{}
	var order []journal.LogName
	for _, blocks := range appends()[1:] {
		var logs []journal.LogName
		for _, b := range blocks {
			bytes[b.Log] += len(b.Data)
			if !slices.Contains(logs, b.Log) {
				logs = append(logs, b.Log)
			}
		}
		order = append(order, logs...)
		if ahead := bytes["big"] - bytes["small"]; slices.Contains(logs, "small") && ahead > 13<<10 {
			t.Errorf("the log of big commits is %d bytes ahead", ahead)
		}
	}
	if order[0] != "small" || bytes["big"] < 36<<10 || bytes["small"] == 0 {
		t.Errorf("the order was %v, with bytes %v", order, bytes)
	}
}
