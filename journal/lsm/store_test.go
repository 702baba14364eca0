package lsm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

func pair(k, v string) journal.Pair { return journal.Pair{Key: []byte(k), Value: []byte(v)} }

// fillTest makes updates with n keys each, of generation g.
func fillTest(t testing.TB, s *Store, keys, g int) {
	t.Helper()
	var pairs []journal.Pair
	for i := range keys {
		pairs = append(pairs, pair(fmt.Sprintf("g%02d/%06d", i%50, i), fmt.Sprintf("value %d of generation %d", i, g)))
	}
	if err := s.Update(context.Background(), pairs); err != nil {
		t.Fatal(err)
	}
}

// Updates of all sizes replace what earlier ones wrote, in one process and after it.
func TestUpdatesReplaceEachOther(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	want := model{}
	for round, n := range []int{10, 511, 512, 1500, 50_000, 1} {
		s := openTest(t, dir, Options{MemoryBytes: 1 << 20})
		for again := range 2 {
			var pairs []journal.Pair
			for i := range n + n/10 { // a tenth of the keys twice: the later one counts
				k, v := fmt.Sprint("e", i%n), fmt.Sprint(round, again, i)
				want[k] = v
				pairs = append(pairs, pair(k, v))
			}
			if err := s.Update(ctx, pairs); err != nil {
				t.Fatal(err)
			}
			if err := want.compare(s); err != nil {
				t.Errorf("round %d, %d pairs: %v", round, n, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Who reads while there are updates, flushes and merges sees each update whole or not at all.
func TestReadersSeeWholeUpdates(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir(), small())
	const keys, updates, readers = 40, 300, 3
	fillTest(t, s, keys, 0)
	done := make(chan struct{})
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for last := 0; ; {
				select {
				case <-done:
					return
				default:
				}
				seen := map[int]int{}
				err := s.Scan(ctx, []byte("g"), []byte("g"), func(_, v []byte) error {
					var i, g int
					_, err := fmt.Sscanf(string(v), "value %d of generation %d", &i, &g)
					seen[g]++
					return err
				})
				if err != nil || len(seen) != 1 {
					t.Errorf("entries by generation: %v, %v", seen, err)
					return
				}
				for g, n := range seen {
					if g < last || n != keys {
						t.Errorf("%d entries of generation %d behind %d", n, g, last)
						return
					}
					last = g
				}
			}
		})
	}
	for g := range updates {
		fillTest(t, s, keys, g+1)
		if g%50 == 0 {
			if err := s.Delete(ctx, [][]byte{[]byte("never")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(done)
	all.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Damage of any file is an error of the right kind: nothing else than what was written is
// ever read. It is remembered, and the next Open says so.
func TestDamage(t *testing.T) {
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	ctx := context.Background()
	made := t.TempDir()
	s := openTest(t, made, small())
	m := model{}
	r := random{rng}
	for range 50 {
		if err := s.Update(ctx, r.pairs(m)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Delete(ctx, r.keys(m)), s.Close()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(made, "*"))
	if err != nil {
		t.Fatal(err)
	}
	how := map[string]int{}
	for i := range 300 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(files[rng.IntN(len(files))])
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		switch at := rng.IntN(len(content)); rng.IntN(6) {
		case 0:
			err = os.Remove(path)
		case 1:
			err = os.Truncate(path, int64(at))
		default:
			content[at] ^= 1 << rng.IntN(8)
			err = os.WriteFile(path, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, small())
		if err == nil {
			err = s.Check(ctx)
			if errors.Is(err, errDamaged) {
				how["check"]++
			}
			if k := m.compare(s); journal.KindOf(k) != journal.KindCorrupt && k != nil {
				t.Fatalf("-model.seed %d, case %d, %s: %v", seed, i, name, k)
			}
			if closed := s.Close(); closed != nil && journal.KindOf(closed) != journal.KindCorrupt {
				t.Fatalf("-model.seed %d, case %d, %s: close: %v", seed, i, name, closed)
			}
			if _, again := Open(dir, small()); journal.KindOf(again) != journal.KindCorrupt {
				t.Fatalf("-model.seed %d, case %d, %s: it is opened again: %v", seed, i, name, again)
			}
		} else {
			how["open"]++
		}
		if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(err.Error(), dir) {
			t.Fatalf("-model.seed %d, case %d, %s: %v", seed, i, name, err)
		}
	}
	t.Log(how)
}

// A merge that meets damage ends the store with an error, which the next update gets; the process
// goes on.
func TestAMergeMeetsDamage(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	o := small()
	o.quiet = 1 << 40 // nothing is merged that need not be
	s := openTest(t, dir, o)
	for g := range 2 {
		fillTest(t, s, 100, g)
		if err := s.Delete(ctx, [][]byte{[]byte("never")}); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*"+tableExt))
	if err != nil || len(tables) != 2 {
		t.Fatal(tables, err)
	}
	f, err := os.OpenFile(tables[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff}, 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(ctx); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("compacting: %v", err)
	}
	if err := s.Update(ctx, []journal.Pair{pair("a", "b")}); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("an update: %v", err)
	}
	if err := s.Close(); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("close: %v", err)
	}
	if _, err := Open(dir, o); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("opening it again: %v", err)
	}
}

// While there is no room for a merge, updates and reads go on; then it is made.
func TestNoRoomForAMerge(t *testing.T) {
	ctx := context.Background()
	o := small()
	var mu sync.Mutex
	full := true
	asked := 0
	o.Room = func(bytes int64) error {
		mu.Lock()
		defer mu.Unlock()
		if asked++; full && bytes > 0 {
			return &journal.Error{Op: "space", Kind: journal.KindFull, Detail: "no room"}
		}
		return nil
	}
	s := openTest(t, t.TempDir(), o)
	for g := range 20 {
		fillTest(t, s, 100, g)
	}
	if err := s.Compact(ctx); journal.KindOf(err) != journal.KindFull {
		t.Errorf("compacting: %v", err)
	}
	if n := s.Stats().Runs; n < tierRuns {
		t.Errorf("%d runs, although there was no room to merge any", n)
	}
	if _, ok, err := s.Get(ctx, []byte("g00/000000")); !ok || err != nil {
		t.Errorf("get: %v, %v", ok, err)
	}
	mu.Lock()
	full = false
	mu.Unlock()
	fillTest(t, s, 100, 21)
	if err := errors.Join(s.Compact(ctx), s.Settle(ctx)); err != nil {
		t.Error(err)
	}
	if n := s.Stats().Runs; n != 1 || asked == 0 {
		t.Errorf("%d runs, room was asked for %d times", n, asked)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// What a crash leaves of unfinished work is removed, and nothing else.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, small())
	fillTest(t, s, 10, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{"00000099.table": false, runsFile + newExt: false, "other.table": true, "lineage": true} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(dir, Options{ReadOnly: true}); err != nil {
			t.Error(err)
		} else if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s after opening for reading only: %v", name, err)
		}
		if err := openTest(t, dir, small()).Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A store that is open for reading only, or closed, refuses what it has to.
func TestRefusals(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := openTest(t, dir, small())
	fillTest(t, s, 10, 0)
	for _, k := range []string{"", strings.Repeat("k", maxKey+1)} {
		if err := s.Update(ctx, []journal.Pair{pair(k, "v")}); journal.KindOf(err) != journal.KindInvalid {
			t.Errorf("a key of %d bytes: %v", len(k), err)
		}
	}
	if err := errors.Join(s.Update(ctx, nil), s.Delete(ctx, nil), s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	refused := func(s *Store, kind journal.ErrorKind) {
		t.Helper()
		for what, err := range map[string]error{
			"update": s.Update(ctx, []journal.Pair{pair("a", "b")}), "delete": s.Delete(ctx, [][]byte{[]byte("a")}),
			"clear": s.Clear(ctx), "compact": s.Compact(ctx),
		} {
			if journal.KindOf(err) != kind {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	refused(s, journal.KindClosed)
	if _, _, err := s.Get(ctx, []byte("g00/000000")); journal.KindOf(err) != journal.KindClosed {
		t.Errorf("a read of a closed store: %v", err)
	}
	readOnly := small()
	readOnly.ReadOnly = true
	s = openTest(t, dir, readOnly)
	refused(s, journal.KindInvalid)
	if _, ok, err := s.Get(ctx, []byte("g00/000000")); !ok || err != nil {
		t.Errorf("get: %v, %v", ok, err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Scan(canceled, nil, nil, func(_, _ []byte) error { return nil }); journal.KindOf(err) != journal.KindCanceled {
		t.Errorf("a scan whose context has ended: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Which runs are merged depends on their number of a tier, and, when there is time, on their sizes.
func TestWhatIsMerged(t *testing.T) {
	runs := func(text string) (all []*run) {
		for _, field := range strings.Fields(text) {
			r := &run{}
			var size int64
			if _, err := fmt.Sscanf(field, "%d:%d", &r.tier, &size); err != nil {
				t.Fatal(err)
			}
			r.tables = []*table{{about: about{size: size}}}
			all = append(all, r)
		}
		return all
	}
	for _, c := range []struct {
		runs        string
		due, atRest int
	}{
		{"", 0, 0},
		{"0:1", 0, 0},
		{"0:1 0:1", 0, 2},
		{"0:1 0:1 0:1 0:1", 4, 4},
		{"0:1 1:9 1:9 1:9 1:9", 4, 5},
		{"0:1 1:4", 0, 0},
		{"0:1 1:3", 0, 2},
		{"0:1 1:4 2:19", 0, 3},
		{"0:1 1:4 2:20", 0, 0},
	} {
		all := runs(c.runs)
		if n := len(due(all)); n != c.due {
			t.Errorf("%s: %d are due, not %d", c.runs, n, c.due)
		}
		if n := len(atRest(all)); n != c.atRest {
			t.Errorf("%s: %d are merged at rest, not %d", c.runs, n, c.atRest)
		}
	}
}

// Filters tell what is there from what is not, wherever in a key the difference stands.
func TestFilter(t *testing.T) {
	const n = 20_000
	for indent := range 17 {
		key := func(i int) []byte {
			return fmt.Appendf(nil, "%s account-%07d/1", strings.Repeat("x", indent), i)
		}
		var all filterHashes
		for i := range n {
			h := hashOf(key(2 * i))
			all.add(h, h)
		}
		f := all.filter()
		astray := 0
		for i := range n {
			if !f.mayHave(hashOf(key(2 * i))) {
				t.Fatalf("%q was added and is not there", key(2*i))
			}
			if f.mayHave(hashOf(key(2*i + 1))) {
				astray++
			}
		}
		if astray > n/40 {
			t.Errorf("%d of %d looks go astray, with keys as %q", astray, n, key(1))
		}
	}
	if !filter(nil).mayHave(1) {
		t.Error("an empty filter knows what is not there")
	}
}
