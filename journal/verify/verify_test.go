package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// Verify finds each kind of damage, says which it is, and goes on behind it.
func TestVerifyFinds(t *testing.T) {
	ctx := context.Background()
	journalOf := func(t *testing.T, commits int, reply string) *journaltest.Memory {
		m := journaltest.NewMemory()
		j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{Clock: func() journal.UnixNano { return 1e18 }})
		if err != nil {
			t.Fatal(err)
		}
		for i := range commits {
			c := journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i), 1)
			c.Command.Reply = []byte(reply)
			if _, err := journaltest.Append(j, c); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		return m.CrashClone(0)
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, m *journaltest.Memory)
		found  int
		says   string
	}{
		{"nothing", func(*testing.T, *journaltest.Memory) {}, 0, ""},
		{"a flipped bit", func(t *testing.T, m *journaltest.Memory) { m.Corrupt("bank", 1, 1000) }, 1,
			"batch 2 at position 2: the batch's checksum"},
		{"two flipped bits", func(t *testing.T, m *journaltest.Memory) {
			m.Corrupt("bank", 1, 1000)
			m.Corrupt("bank",
				3, 40)
		}, 2, "batch 4 at position 4"},
		{"a missing batch", func(t *testing.T, m *journaltest.Memory) { m.Lose("bank", 2) }, 1,
			"batch 4 at position 4: the log's batch number 3"},
		{"a lost end", func(t *testing.T, m *journaltest.Memory) { m.Lose("bank", 4) }, 3, "lost its end"},
		{"a lost log", func(t *testing.T, m *journaltest.Memory) {
			for range 5 {
				m.Lose("bank", 0)
			}
		}, 1, "not there at all"},
		{"another journal's batch", func(t *testing.T, m *journaltest.Memory) {
			other := journalOf(t, 5, "other")
			b, _, err := other.Log().Last(ctx, "bank")
			if err != nil {
				t.Fatal(err)
			}
			m.Lose("bank", 4)
			if err := m.Log().Append(ctx, []journal.Block{b}); err != nil {
				t.Fatal(err)
			}
		}, 2, "hash of the batch before"}, // and the index has the stamp of the one that was there
		{"events of the index", func(t *testing.T, m *journaltest.Memory) { journaltest.Overwrite(t, m, "e", "what?") },
			5,
			"has something else for version 1"},
		{"answers", func(t *testing.T, m *journaltest.Memory) { journaltest.Overwrite(t, m, "a", "what?") }, 5,
			"answer to command id \"c0\" is damaged"},
		{"the checkpoint", func(t *testing.T, m *journaltest.Memory) { journaltest.Overwrite(t, m, "c", "what?") }, 1,
			"checkpoint is damaged"},
		{"an index behind the log",
			func(t *testing.T, m *journaltest.Memory) { journaltest.TakeIndex(t, m, journalOf(t, 3, "reply")) }, 0, ""},
		{"an index behind the log that lies", func(t *testing.T, m *journaltest.Memory) {
			journaltest.TakeIndex(t, m, journalOf(t, 3, "reply"))
			journaltest.Overwrite(t, m, "e", "what?")
		}, 3, "has something else for version 1"},
		{"an index that lacks what it says it has", func(t *testing.T, m *journaltest.Memory) {
			part := journalOf(t, 3, "reply")
			journaltest.CopyIndex(t, part, m, "c")
			journaltest.TakeIndex(t, m, part)
		}, 6, "lacks version 4"},
		{"the event catalogue", func(t *testing.T, m *journaltest.Memory) { journaltest.Overwrite(t, m, "y", "what?") },
			1,
			"count of the events of type \"Deposited\" is damaged"},
		{"an event catalogue that lies", func(t *testing.T, m *journaltest.Memory) {
			journaltest.CopyIndex(t, m, journalOf(t, 4, "reply"), "y")
		}, 1, "has 4 events of type \"Deposited\" at 1 to 4, the log 5 at 1 to 5"},
		{"an event catalogue of more", func(t *testing.T, m *journaltest.Memory) {
			journaltest.CopyIndex(t, m, journalOf(t, 6, "reply"), "y")
		}, 1, "has 6 events of type"},
		{"an event catalogue without a type", func(t *testing.T, m *journaltest.Memory) {
			if err := m.Index().Delete(ctx, [][]byte{append([]byte{'y', 0, 4}, "bankDeposited"...)}); err != nil {
				t.Fatal(err)
			}
		}, 1, "no event of type \"Deposited\", the log 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := journalOf(t, 5, "reply")
			c.damage(t, m)
			var last verify.Progress
			report, err := verify.Run(ctx, m.Storage(),
				verify.Options{Progress: func(p verify.Progress) { last = p }})
			if err != nil {
				t.Fatal(err)
			}
			said := fmt.Sprint(report.Problems)
			if report.Found != c.found || len(report.Problems) != c.found || !strings.Contains(said, c.says) {
				t.Errorf("%d problems found, want %d with %q:\n%s", report.Found, c.found, c.says,
					strings.Join(strings.Split(said, "} {"), "\n"))
			}
			if last.Batches != report.Logs["bank"].Batches && c.name != "a missing batch" {
				t.Errorf("progress ends with %+v", last)
			}
			if unindexed := report.Logs["bank"].Unindexed; (unindexed == 2) != strings.Contains(c.name,
				"behind the log") {
				t.Errorf("%d batches are said not to be indexed", unindexed)
			}
			if _, err := json.Marshal(report); err != nil {
				t.Error(err)
			}
		})
	}
}

// A command id may come again when its window is over, and its last use answers.
func TestAnIDComesAgainAfterItsWindow(t *testing.T) {
	ctx := context.Background()
	now := journal.UnixNano(1e18)
	m := journaltest.NewMemory()
	o := commitlog.Options{Clock: journaltest.ClockAt(&now), AnswerWindow: time.Hour}
	j := journaltest.Open(t, m.Storage(), o)
	add := func(at journal.Version) error {
		_, err := journaltest.Append(j, journaltest.Commit("bank", "k", at, "same", 1))
		return err
	}
	if err := add(0); err != nil {
		t.Fatal(err)
	}
	journaltest.Advance(&now, journal.UnixNano(time.Hour))
	for range 2 { // known from the overlay or the index, and then from the index alone
		if err := add(1); journal.KindOf(err) != journal.KindDuplicateID {
			t.Errorf("at the end of the window: %v", err)
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		m = m.CrashClone(0)
		j = journaltest.Open(t, m.Storage(), o)
	}
	now++
	if err := add(1); err != nil {
		t.Errorf("behind the window: %v", err)
	}
	found, err := j.Answer(ctx, "bank", "same", func(c *journal.Committed, _ journal.Receipt, err error) {
		if err != nil || c.Version != 2 {
			t.Errorf("the answer is %+v, %v", c, err)
		}
	})
	if !found || err != nil {
		t.Errorf("answer: %v, %v", found, err)
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	m = m.CrashClone(0)
	for _, window := range []time.Duration{0, time.Minute, 2 * time.Hour} { // the log says what it was
		report, err := verify.Run(ctx, m.Storage(), verify.Options{AnswerWindow: window})
		if err != nil || report.Found > 0 {
			t.Errorf("verify with a window of %s: %v, %v", window, report.Problems, err)
		}
	}
}

// An id that was used again without a word, as the first versions did, is held to the
// window that Verify is told of: one day by default. It is found wherever the index has come to.
func TestAnIDThatComesAgainTooSoon(t *testing.T) {
	ctx := context.Background()
	now := journal.UnixNano(1e18)
	m := journaltest.NewMemory()
	var indexes []*journaltest.Memory
	for use := range 3 {
		if use > 0 { // nobody shall know of the use before
			key := append(format.AnswerPrefix(11574), "\x00\x04banksame"...) // of all these times
			if err := m.Index().Delete(ctx, [][]byte{key}); err != nil {
				t.Fatal(err)
			}
		}
		j := journaltest.Open(t, m.Storage(), commitlog.Options{Clock: journaltest.ClockAt(&now)})
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", journal.Version(use), "same",
			1)); err != nil {
			t.Fatal(err)
		}
		journaltest.Close(t, j)
		m = m.CrashClone(0)
		indexes = append(indexes, m.CrashClone(0))
		journaltest.Advance(&now, journal.UnixNano(time.Hour))
	}
	for window, want := range map[time.Duration]int{0: 2, time.Hour: 2, time.Hour - 1: 0, 24 * time.Hour: 2} {
		for indexed, of := range indexes {
			at := m.CrashClone(0)
			journaltest.TakeIndex(t, at, of)
			report, err := verify.Run(ctx, at.Storage(), verify.Options{AnswerWindow: window})
			if err != nil || report.Found != want || want > 0 && !strings.Contains(report.Problems[0].Detail, `command id "same" is used again after 1h0m0s`) {
				t.Errorf("a window of %s, %d batches indexed: %v, %v", window, indexed+1, report.Problems, err)
			}
		}
	}
}

// The clock that says that a window is over may be set back before the commit gets its
// time, which is no reason to doubt the commit.
func TestAClockThatIsSetBack(t *testing.T) {
	var looks atomic.Int64
	m := journaltest.NewMemory()
	j := journaltest.Open(t, m.Storage(), commitlog.Options{AnswerWindow: time.Hour, Clock: func() journal.UnixNano {
		if looks.Add(1) == 2 { // when the id is used again
			return 1e18 + journal.UnixNano(2*time.Hour)
		}
		return 1e18
	}})
	for at := range journal.Version(2) {
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", at, "same", 1)); err != nil {
			t.Fatal(err)
		}
		if looks.Load() != int64(1+2*at) {
			t.Fatalf("after commit %d the journal has looked at the clock %d times", at+1, looks.Load())
		}
		journaltest.AllIndexed(t, j)
	}
	journaltest.Close(t, j)
	journaltest.Proved(t, m.CrashClone(0))
}

// Whatever windows were in force, and whatever a crash took from the index: what the
// journal accepted verification accepts, before and after the index is completed, and from
// the log alone.
func TestWindowsThatChange(t *testing.T) {
	ctx := context.Background()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 6))
	now := journal.UnixNano(1e18)
	m := journaltest.NewMemory()
	versions := map[string]journal.Version{}
	last := map[string]journal.UnixNano{} // use of an id
	again := 0
	for round := range 60 {
		window := time.Duration(1 + rng.Int64N(int64(time.Hour)))
		j := journaltest.Open(t, m.Storage(), commitlog.Options{AnswerWindow: window, MaxBatchBytes: 400,
			Clock: journaltest.ClockAt(&now)})
		first := j.First("bank")
		for i := range 15 {
			journaltest.Advance(&now, journal.UnixNano(rng.Int64N(int64(20*time.Minute))))
			if rng.IntN(10) == 0 {
				journaltest.Advance(&now, -journal.UnixNano(rng.Int64N(int64(time.Hour)))) // somebody sets the clock
			}
			key, id := fmt.Sprint("k", rng.IntN(3)), fmt.Sprint("id", rng.IntN(6))
			if rng.IntN(2) == 0 { // as a shard does
				if _, err := j.Answer(ctx, "bank", journal.CommandID(id),
					func(*journal.Committed, journal.Receipt, error) {}); err != nil {
					t.Fatal(err)
				}
			}
			r, err := journaltest.Append(j, journaltest.Commit("bank", key, versions[key], id, 1))
			if journal.KindOf(err) == journal.KindDuplicateID {
				continue
			}
			if err != nil {
				t.Fatalf("seed %d, round %d, %d: %v", seed, round, i, err)
			}
			if was, ok := last[id]; ok {
				again++
				if r.Time() <= was+journal.UnixNano(window) && first == j.First("bank") {
					t.Errorf("seed %d: id %s was taken again after %s, with a window of %s", seed, id,
						time.Duration(r.Time()-was), window)
				}
			}
			versions[key], last[id] = r.Version(), r.Time()
		}
		if head := j.Head("bank"); rng.IntN(10) == 0 && head > 10 {
			if _, err := j.Retain(ctx, "bank", journal.Retention{Before: head - 10, Force: true}); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			clear(last) // some are forgotten with their answers
		}
		journaltest.Close(t, j)
		for lost := range 5 {
			journaltest.Proved(t, m.CrashClone(lost))
		}
		rebuilt := m.CrashClone(0)
		if err := commitlog.Rebuild(ctx, rebuilt.Storage(), nil); err != nil {
			t.Fatal(err)
		}
		journaltest.Proved(t, rebuilt)
		m = m.CrashClone(rng.IntN(5))
		journaltest.Advance(&now, journal.UnixNano(rng.Int64N(int64(time.Hour))))
	}
	if again < 50 {
		t.Errorf("seed %d: only %d ids were taken again", seed, again)
	}
}
