package pebbleindex

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// Whatever comes together with Close is done or refused.
func TestCloseAtAnyTime(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for range 30 {
		s := openTest(t, t.TempDir(), small())
		fillTest(t, s, 300, 0)
		var all sync.WaitGroup
		for _, do := range []func() error{
			func() error { return s.Compact(ctx) },
			func() error { return s.Delete(ctx, [][]byte{[]byte("g00/000000")}) },
			func() error { return s.DeleteRange(ctx, []byte("g00/"), []byte("g01/")) },
			func() error { return s.Clear(ctx) },
			func() error { _, err := s.Has(ctx, []byte("g01/000001")); return err },
			func() error { s.Stats(); return nil },
			s.Close,
		} {
			all.Go(func() {
				if err := do(); err != nil && journal.KindOf(err) != journal.KindClosed {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if st := s.Stats(); st.Levels != 0 || st.Bytes != 0 {
			t.Errorf("a closed store has %+v", st)
		}
	}
}

// Who scans goes on while the store is cleared, and sees what was there.
func TestClearDuringAScan(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := openTest(t, t.TempDir(), small())
	fillTest(t, s, 1000, 0)
	n := 0
	err := s.Scan(ctx, nil, nil, func(_, _ []byte) error {
		if n++; n == 10 {
			return s.Clear(ctx)
		}
		return nil
	})
	if n != 1000 || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
	if err := (model{}).compare(s); err != nil {
		t.Error(err)
	}
	closeTest(t, s)
}

// An error of yield is returned as it is. What a caller appends to what a scan yields is not seen by others.
func TestWhatAScanYields(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := openTest(t, t.TempDir(), small())
	fillTest(t, s, 1000, 0)
	if err := s.Delete(ctx, [][]byte{[]byte("never")}); err != nil {
		t.Fatal(err)
	}
	err := s.Scan(ctx, []byte("g"), nil, func(k, v []byte) error {
		_, _ = append(k, "xxxxxxxx"...), append(v, "xxxxxxxx"...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Scan(ctx, []byte("g"), nil, func(k, v []byte) error {
		if !bytes.HasPrefix(v, []byte("value ")) || bytes.Contains(v, []byte("xx")) {
			return fmt.Errorf("%q is %q", k, v)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	stop := errors.New("enough")
	if err := s.Scan(ctx, []byte("g"), nil, func(_, _ []byte) error { return stop }); err != stop {
		t.Errorf("the error of yield came back as %v", err)
	}
	closeTest(t, s)
}

// Keys are counted by their number, over openings, deletions, ranges that are deleted, and compactions.
func TestCounts(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	want := int64(0)
	check := func(s *Store, what string) {
		t.Helper()
		if n := s.Stats().Counted; n != want {
			t.Errorf("%s: %d are counted, not %d", what, n, want)
		}
	}
	for round := range 3 {
		s := openTest(t, dir, small())
		check(s, fmt.Sprint("opened in round ", round))
		var pairs []journal.Pair
		for i := range 3000 {
			counted := fmt.Sprintf("g%02d/%d-%d", 10*round+i%10, round, i)
			pairs = append(pairs, pair(counted, "v"), pair(fmt.Sprint("a", round, i), "v"))
		}
		if err := s.Update(ctx, pairs); err != nil {
			t.Fatal(err)
		}
		want += 3000
		check(s, "updated")
		if err := s.Delete(ctx, [][]byte{fmt.Appendf(nil, "g%02d/%d-0", 10*round, round), []byte("a0")}); err != nil {
			t.Fatal(err)
		}
		want--
		check(s, "deleted")
		if round == 2 {
			if err := s.DeleteRange(ctx, []byte("g00/"), []byte("g10/")); err != nil {
				t.Fatal(err)
			}
			want -= 2999
			check(s, "a range was deleted")
			closeTest(t, s)
			s = openTest(t, dir, small())
			check(s, "opened with a range that was deleted")
			if err := s.Compact(ctx); err != nil {
				t.Fatal(err)
			}
			check(s, "compacted")
		}
		closeTest(t, s)
	}
	s := openTest(t, dir, small())
	check(s, "opened")
	if err := s.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	want = 0
	check(s, "cleared")
	closeTest(t, s)
}

// Blocks and what is not written yet have the memory that they may have, and no more.
func TestMemory(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	o := Options{MemoryBytes: MinMemory}
	s := openTest(t, t.TempDir(), o)
	for n := range 20 {
		var pairs []journal.Pair
		for i := range 5000 {
			pairs = append(pairs, pair(fmt.Sprintf("k%d-%d", n, i), fmt.Sprintf("%0200d", i*n)))
		}
		if err := s.Update(ctx, pairs); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Scan(ctx, nil, nil, func(_, _ []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range 20 * 5000 {
		if ok, err := s.Has(ctx, fmt.Appendf(nil, "k%d-%d", i%20, i/20)); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if n := s.Stats(); n.Cached+n.Memory > MinMemory || n.Cached == 0 || n.Misses == 0 || n.Hits == 0 {
		t.Errorf("%+v", n)
	}
	closeTest(t, s)
}

// Any bytes have an order, and keys of one group stand together.
func FuzzComparer(f *testing.F) {
	c := newComparer(format.IndexGroup)
	f.Add([]byte("e\x00\x01b\x00\x01k12345678"), []byte("e\x00\x01b\x00\x02kk12345678"), []byte("e\x00"))
	f.Add([]byte("f\xff\xff"), []byte{}, []byte("e\x00\x01b\xff\xff"))
	f.Fuzz(func(t *testing.T, x, y, z []byte) {
		for _, k := range [][]byte{x, y, z} {
			n := c.Split(k)
			if n < 0 || n > len(k) || c.Split(k[:n]) != n {
				t.Fatalf("the prefix of %q has %d bytes, and that has %d", k, n, c.Split(k[:n]))
			}
			next := c.ImmediateSuccessor(nil, k[:n])
			if c.Compare(k, next) >= 0 && len(bytes.Trim(k, "\xff")) > 0 {
				t.Fatalf("behind %q comes %q", k[:n], next)
			}
		}
		all := [][]byte{x, y, z}
		slices.SortFunc(all, c.Compare)
		prefix := func(k []byte) string { return string(k[:c.Split(k)]) }
		if prefix(all[0]) == prefix(all[2]) && prefix(all[0]) != prefix(all[1]) {
			t.Fatalf("%q stands between %q and %q", all[1], all[0], all[2])
		}
	})
}

// What a table says of its counts is read back, or refused.
func FuzzCounts(f *testing.F) {
	c := collector{of: testCounted.Of}
	if err := c.AddPointKey(pebble.MakeInternalKey([]byte("g07/1"), 1, pebble.InternalKeyKindSet), nil); err != nil {
		f.Fatal(err)
	}
	b, err := c.FinishTable(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := map[uint32]int64{}
		if !addCounts(n, b) {
			return
		}
		b, err := (&collector{n: n}).FinishTable(nil)
		again := map[uint32]int64{}
		if err != nil || !addCounts(again, b) || fmt.Sprint(again) != fmt.Sprint(n) {
			t.Fatalf("%v is read back as %v, %v", n, again, err)
		}
	})
}
