package commitlog_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// keysOf lists the keys of a log after a key.
func keysOf(t *testing.T, j *commitlog.Journal, log journal.LogName, after string) (keys []string) {
	t.Helper()
	err := j.Keys(t.Context(), log, after, func(key string) error {
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Keys are listed once each, whatever the number of their events, of their own log only, in the order of the
// index, and from any place on, also after a key that is not there.
func TestKeysOfALog(t *testing.T) {
	r := newRetainer(t, journaltest.NewMemory().Storage())
	defer r.Close(t.Context())
	// Among them keys that are the beginning of others, and that have the bytes of numbers.
	want := []string{"a", "aa", "ab", "b", "a\x00", "\xc3\xbf", strings.Repeat("k", 255), "z"}
	for i, key := range want {
		for v := range i%3 + 1 {
			id := fmt.Sprint(key, v)
			for _, log := range []string{"bank", "bankrupt"} {
				if log == "bankrupt" && i%2 == 0 {
					continue
				}
				c := journaltest.Commit(journal.LogName(log), key, journal.Version(v), id, 1)
				if _, err := journaltest.Append(r.Journal, c); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	slices.SortFunc(want, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	if got := keysOf(t, r.Journal, "bank", ""); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i, key := range want {
		if got := keysOf(t, r.Journal, "bank", key); !slices.Equal(got, want[i+1:]) {
			t.Errorf("after %q: %q, want %q", key, got, want[i+1:])
		}
	}
	if got := keysOf(t, r.Journal, "bank", "c"); !slices.Equal(got, want[slices.Index(want, "b")+1:]) {
		t.Errorf("after a key that is not there: %q", got)
	}
	if got := keysOf(t, r.Journal, "ban", ""); got != nil {
		t.Errorf("of another log: %q", got)
	}
	enough, n := errors.New("enough"), 0
	err := r.Keys(t.Context(), "bank", "", func(key string) error {
		if n++; n == 2 {
			return enough
		}
		// A yield may call the journal.
		return r.Entity(t.Context(), "bank", key, 0, 1, func(*journal.Event) error { return nil })
	})
	if err != enough || n != 2 {
		t.Errorf("ended after %d keys with %v", n, err)
	}
}

// Entities whose events are all deleted, or kept apart, are listed, too.
func TestKeysOfWhatARetentionHasLeft(t *testing.T) {
	_, r := filled(t, 20)
	defer r.Close(t.Context())
	r.retain(t, 19, "k3") // k0 to k2 have lost all events, and k3 has its own apart
	want := []string{"k0", "k1", "k2", "k3", "k4"}
	if got := keysOf(t, r.Journal, "bank", ""); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := keysOf(t, r.Journal, "bank", "k1"); !slices.Equal(got, want[2:]) {
		t.Errorf("%q, want %q", got, want[2:])
	}
	if err := r.add(1); err != nil {
		t.Fatal(err)
	}
	if got := keysOf(t, r.Journal, "bank", ""); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
