package commitlog_test

import (
	"errors"
	"math/bits"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// For every time Since finds what a look at all events finds, in logs of all forms, and looks at few batches for it.
func TestSince(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 30 {
		m := journaltest.NewMemory()
		r := newRetainer(t, m.Storage())
		begin := *r.now
		for range random.IntN(60) {
			journaltest.Advance(r.now, journal.UnixNano(random.IntN(3))) // some are of one time
			events := random.IntN(4) * random.IntN(2)                    // many commits have none
			c := journaltest.Commit("bank", "a", r.versions["a"], string(rune(0x4e00+r.n)), events)
			if _, err := journaltest.Append(r.Journal, c); err != nil {
				t.Fatal(err)
			}
			r.versions["a"] += journal.Version(events)
			r.n++
		}
		checkSince(t, r.Journal, begin-1, *r.now+2)
		if head := r.Head("bank"); head > 2 {
			if _, err := r.Retain(t.Context(), "bank", journal.Retention{Before: head / 2, Force: true}); err != nil {
				t.Fatal(err)
			}
			checkSince(t, r.Journal, begin-1, *r.now+2)
		}
		journaltest.Close(t, r.Journal)
	}
}

func checkSince(t *testing.T, j *commitlog.Journal, from, to journal.UnixNano) {
	t.Helper()
	var all []journal.Event
	if err := j.Read(t.Context(), "bank", 0, 0,
		func(e *journal.Event) error { all = append(all, *e); return nil }); err != nil {
		t.Fatal(err)
	}
	for at := from; at <= to; at++ {
		want := j.Head("bank") + 1
		for i := range all {
			if all[i].Time >= at {
				want = all[i].Position
				break
			}
		}
		looks := 0
		got, err := j.Since(t.Context(), "bank", at, func() error { looks++; return nil })
		if err != nil || got != want {
			t.Errorf("since %d of %d to %d: position %d, %v; want %d", at, from, to, got, err, want)
		}
		if most := bits.Len(uint(len(all))) + 1; looks > most {
			t.Errorf("it looked at %d batches of %d events, want %d at most", looks, len(all), most)
		}
	}
}

// What keeps Since from looking is its error, and a log that is not there has nothing.
func TestSinceFails(t *testing.T) {
	m := journaltest.NewMemory()
	r := newRetainer(t, m.Storage())
	defer journaltest.Close(t, r.Journal)
	if at, err := r.Since(t.Context(), "bank", 5, nil); at != 1 || err != nil {
		t.Errorf("without a log: %d, %v", at, err)
	}
	if err := r.add(10); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if _, err := r.Since(t.Context(), "bank", *r.now, func() error { return no }); err != no {
		t.Errorf("it fails with %v", err)
	}
	m.Corrupt("bank", 5, 700)
	if at, err := r.Since(t.Context(), "bank", *r.now-journal.UnixNano(5*time.Minute),
		nil); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("with a damaged batch: %d, %v", at, err)
	}
}
