package commitlog_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// daysKept are the days of which an index has answers.
func daysKept(t *testing.T, m *journaltest.Memory) (days []uint32) {
	t.Helper()
	err := m.Index().Scan(t.Context(), []byte{'a'}, nil, func(k, _ []byte) error {
		if d, ok := format.AnswerDay(k); ok && !slices.Contains(days, d) {
			days = append(days, d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return days
}

// Days of answers go when their window is over, whichever windows the journal had meanwhile, and no answer goes before.
func TestDaysOfAnswersEnd(t *testing.T) {
	const hour = journal.UnixNano(time.Hour)
	now := 100 * 24 * hour
	m := journaltest.NewMemory()
	var version journal.Version
	type answer struct{ at, window journal.UnixNano }
	written := map[string]answer{}
	most := 0
	for i := range 60 { // 15 days
		window := time.Duration(24) * time.Hour
		switch {
		case i >= 16 && i < 24 || i == 27: // and not in between
			window = 72 * time.Hour
		case i >= 40:
			window = time.Hour
		}
		j := journaltest.Open(t, m.Storage(), commitlog.Options{AnswerWindow: window, Clock: journaltest.ClockAt(&now)})
		id := fmt.Sprint("c", i)
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", version, id, 1)); err != nil {
			t.Fatal(err)
		}
		version++
		written[id] = answer{now, journal.UnixNano(window)}
		journaltest.AllIndexed(t, j)
		for id, a := range written {
			done := func(_ *journal.Committed, _ journal.Receipt, err error) {
				if err != nil {
					t.Error(err)
				}
			}
			found, err := j.Answer(t.Context(), "bank", journal.CommandID(id), done)
			age, now := now-a.at, now/hour
			promised, over := age <= min(a.window, journal.UnixNano(window)), age > journal.UnixNano(window)
			if err != nil || promised && !found || over && found {
				t.Errorf("at hour %d the answer to %s, of %d hours, is found: %t, %v", now, id, age/hour, found, err)
			}
		}
		journaltest.Close(t, j)
		journaltest.Proved(t, m.CrashClone(0))
		m = m.CrashClone(0)
		most = max(most, len(daysKept(t, m)))
		journaltest.Advance(&now, 6*hour)
	}
	if days := daysKept(t, m); len(days) > 3 || most < 4 {
		t.Errorf("there are answers of the days %v, and of up to %d at one time", days, most)
	}
	// What is rebuilt is the same, once a journal has been opened.
	again := m.CrashClone(0)
	if err := commitlog.Rebuild(t.Context(), again.Storage(), nil); err != nil {
		t.Fatal(err)
	}
	journaltest.Proved(t, again.CrashClone(0))
	journaltest.Close(t, journaltest.Open(t, again.Storage(), commitlog.Options{Clock: journaltest.ClockAt(&now)}))
	if got, want := indexDump(t, again.CrashClone(0).Storage()), indexDump(t, m.Storage()); got != want {
		t.Errorf("rebuilt and opened the index is\n%s\nand it was\n%s", got, want)
	}
}

// Commits of a time when the clock was far ahead do not take the answers of others away.
func TestAClockThatWasAhead(t *testing.T) {
	now := journal.UnixNano(1e18)
	m := journaltest.NewMemory()
	for i, log := range []journal.LogName{"ahead", "bank", "bank"} {
		ahead := journal.UnixNano(0)
		if i == 0 {
			ahead = journal.UnixNano(365 * 24 * time.Hour)
		}
		j := journaltest.Open(t, m.Storage(), commitlog.Options{Clock: func() journal.UnixNano { return now + ahead }})
		if i < 2 {
			if _, err := journaltest.Append(j, journaltest.Commit(log, "k", 0, "c", 1)); err != nil {
				t.Fatal(err)
			}
		}
		for _, log := range []journal.LogName{"ahead", "bank"}[:min(i+1, 2)] {
			found, err := j.Answer(t.Context(), log, "c", func(*journal.Committed, journal.Receipt, error) {})
			if !found || err != nil {
				t.Errorf("round %d: the answer of %s is found: %t, %v", i, log, found, err)
			}
		}
		journaltest.Close(t, j)
		m = m.CrashClone(0)
	}
	journaltest.Proved(t, m)
}
