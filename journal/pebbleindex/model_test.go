package pebbleindex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(leftBehind...); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// leftBehind has the goroutines that Pebble does not end when it cannot be opened, or gives up.
var leftBehind []goleak.Option

// testGroup takes keys such as g07/3 for one of a group.
func testGroup(key []byte) int {
	if len(key) >= 4 && key[0] == 'g' && key[3] == '/' {
		return 4
	}
	return 0
}

// small is a store that writes and compacts soon.
func small() Options {
	return Options{MemoryBytes: MinMemory, Group: testGroup, Counted: testCounted,
		memTable: 64 << 10, table: 8 << 10, pause: time.Millisecond}
}

// testCounted counts the keys of a group by its number.
var testCounted = Counted{
	Of: func(key []byte) (uint32, bool) {
		if testGroup(key) == 0 {
			return 0, false
		}
		n, err := strconv.ParseUint(string(key[1:3]), 10, 32)
		return uint32(n), err == nil
	},
	Prefix: func(number uint32) []byte { return fmt.Appendf(nil, "g%02d/", number) },
}

func openTest(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// model is what a store should have.
type model map[string]string

func (m model) prefixed(prefix, from string) (keys []string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(k, prefix) && k >= from {
			keys = append(keys, k)
		}
	}
	return keys
}

// random makes operations.
type random struct{ *rand.Rand }

func (r random) key() string {
	if r.IntN(2) == 0 {
		return fmt.Sprintf("g%02d/%d", r.IntN(30), r.IntN(40))
	}
	return fmt.Sprintf("a%d", r.IntN(2000))
}

func (r random) prefix() string {
	switch r.IntN(4) {
	case 0:
		return []string{"g", "a", "", "b"}[r.IntN(4)]
	case 1:
		return fmt.Sprint("a", r.IntN(30))
	}
	return fmt.Sprintf("g%02d/", r.IntN(32))
}

func (r random) pairs(m model) (pairs []journal.Pair) {
	for range 1 + r.IntN(60) {
		k, v := r.key(), strings.Repeat(fmt.Sprint(r.IntN(1000)), r.IntN(40))
		if r.IntN(200) == 0 {
			v = strings.Repeat("a large value", 5000)
		}
		m[k] = v
		pairs = append(pairs, journal.Pair{Key: []byte(k), Value: []byte(v)})
	}
	if r.IntN(2) == 0 { // as the journal hands them in
		slices.SortStableFunc(pairs, func(a, b journal.Pair) int { return bytes.Compare(a.Key, b.Key) })
	}
	return pairs
}

func (r random) keys(m model) (keys [][]byte) {
	for range 1 + r.IntN(30) {
		k := r.key()
		delete(m, k)
		keys = append(keys, []byte(k))
	}
	return keys
}

// compare holds all reads of a store against the model.
func (m model) compare(s *Store) error {
	ctx := context.Background()
	got := model{}
	last := ""
	err := s.Scan(ctx, nil, nil, func(k, v []byte) error {
		if string(k) <= last && last != "" {
			return fmt.Errorf("%q comes behind %q", k, last)
		}
		last = string(k)
		got[last] = string(v)
		return nil
	})
	if err != nil {
		return err
	}
	if !maps.Equal(got, m) {
		for k, v := range m {
			if w, ok := got[k]; !ok || v != w {
				return fmt.Errorf("%q is %.20q (%v), not %.20q; %d entries of %d", k, w, ok, v, len(got), len(m))
			}
		}
		return fmt.Errorf("%d entries, not %d", len(got), len(m))
	}
	return nil
}

// read holds one random read against the model.
func (r random) read(s *Store, m model) error {
	ctx := context.Background()
	key := r.key()
	want, there := m[key]
	switch r.IntN(4) {
	case 0:
		v, ok, err := s.Get(ctx, []byte(key))
		if err != nil || ok != there || string(v) != want || ok != (v != nil) {
			return fmt.Errorf("get %q: %.20q, %v, %w; not %.20q, %v", key, v, ok, err, want, there)
		}
	case 1:
		if ok, err := s.Has(ctx, []byte(key)); err != nil || ok != there {
			return fmt.Errorf("has %q: %v, %w", key, ok, err)
		}
	case 2:
		prefix, from := r.prefix(), r.key()
		if r.IntN(2) == 0 {
			from = prefix
		}
		var got []string
		stop := errors.New("enough")
		most := 1 + r.IntN(50)
		err := s.Scan(ctx, []byte(prefix), []byte(from), func(k, v []byte) error {
			got = append(got, string(k))
			if m[string(k)] != string(v) {
				return fmt.Errorf("%q is %.20q", k, v)
			}
			if len(got) == most {
				return stop
			}
			return nil
		})
		want := m.prefixed(prefix, from)
		if len(want) >= most {
			want = want[:most]
			if err != stop {
				return fmt.Errorf("scan %q from %q: %w instead of its own error", prefix, from, err)
			}
		} else if err != nil {
			return err
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("scan %q from %q: %q, not %q", prefix, from, got, want)
		}
	case 3:
		prefix := r.prefix()
		k, ok, err := s.Last(ctx, []byte(prefix))
		want := m.prefixed(prefix, "")
		if err != nil || ok != (len(want) > 0) || ok && string(k) != want[len(want)-1] {
			return fmt.Errorf("last %q: %q, %v, %w", prefix, k, ok, err)
		}
	}
	return nil
}

// Random operations do to a store what they do to a map.
func TestModel(t *testing.T) {
	t.Parallel()
	length, seed := prove.Time(t, 2*time.Second, 3*time.Minute), prove.Seed(t)
	ctx := context.Background()
	r := random{rand.New(rand.NewPCG(seed, 1))}
	dir := t.TempDir()
	s := openTest(t, dir, small())
	m := model{}
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("-prove.seed=%d: %s: %v", seed, what, err)
		}
	}
	operations := 0
	for end := time.Now().Add(length); time.Now().Before(end); operations++ {
		switch k := r.IntN(1000); {
		case k < 300:
			check("update", s.Update(ctx, r.pairs(m)))
		case k < 320:
			check("delete", s.Delete(ctx, r.keys(m)))
		case k < 324:
			check("settle", s.Settle(ctx))
		case k < 327:
			check("compact", s.Compact(ctx))
		case k < 330:
			check("close", s.Close())
			s = openTest(t, dir, small())
		case k < 333:
			number := r.IntN(30)
			from, to := fmt.Sprintf("g%02d/", number), fmt.Sprintf("g%02d/", number+1+r.IntN(3))
			check("delete range", s.DeleteRange(ctx, []byte(from), []byte(to)))
			maps.DeleteFunc(m, func(k, _ string) bool { return k >= from && k < to })
		case k == 333:
			check("clear", s.Clear(ctx))
			clear(m)
		case k < 340:
			check("compare", m.compare(s))
		default:
			check("read", r.read(s, m))
		}
	}
	check("compare", m.compare(s))
	check("check", s.Check(ctx))
	t.Logf("%d operations, %d entries, %+v", operations, len(m), s.Stats())
	check("close", s.Close())
}
