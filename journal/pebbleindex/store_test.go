package pebbleindex

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
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
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	want := model{}
	for round, n := range []int{10, 511, 512, 1500, 50_000, 1} {
		s := openTest(t, dir, small())
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
	t.Parallel()
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

// Whatever happens to a file, nothing is read that was at no time there. It is an error of the right kind, or Pebble
// finds the state of an earlier time. Damage that a read finds is remembered, and the next Open says so.
func TestDamage(t *testing.T) {
	t.Parallel()
	seed := prove.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	ctx := context.Background()
	made := t.TempDir()
	o := small()
	o.Counted = Counted{} // opening would find most of it
	s := openTest(t, made, o)
	m := model{}
	states := []model{{}}
	r := random{rng}
	for range 50 {
		if err := s.Update(ctx, r.pairs(m)); err != nil {
			t.Fatal(err)
		}
		states = append(states, maps.Clone(m))
	}
	if err := s.Delete(ctx, r.keys(m)); err != nil {
		t.Fatal(err)
	}
	states = append(states, maps.Clone(m))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(made, "*", "*"))
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	how := map[string]int{}
	for i := range 150 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(made, files[rng.IntN(len(files))])
		if err != nil {
			t.Fatal(err)
		}
		at := fmt.Sprintf("-prove.seed=%d, case %d, %s", seed, i, name)
		damageFileAt(t, rng, filepath.Join(dir, name))
		s, err := Open(dir, o)
		if err != nil {
			if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(err.Error(), dir) {
				t.Fatalf("%s: %v", at, err)
			}
			how["open"]++
			continue
		}
		found := s.Check(ctx)
		if found != nil && journal.KindOf(found) != journal.KindCorrupt {
			t.Fatalf("%s: %v", at, found)
		}
		read := s.Scan(ctx, nil, nil, func(_, _ []byte) error { return nil })
		switch {
		case found == nil && read != nil:
			t.Fatalf("%s: the check finds nothing, and reading says %v", at, read)
		case found == nil && !slices.ContainsFunc(states, func(m model) bool { return m.compare(s) == nil }):
			t.Fatalf("%s: what is there was at no time", at)
		case found == nil:
			how["no damage"]++
		default:
			how["check"]++
		}
		if closed := s.Close(); closed != nil && journal.KindOf(closed) != journal.KindCorrupt {
			t.Fatalf("%s: close: %v", at, closed)
		}
		if found == nil {
			continue
		}
		if _, again := Open(dir, small()); journal.KindOf(again) != journal.KindCorrupt {
			t.Fatalf("%s: it is opened again: %v", at, again)
		}
	}
	t.Log(how)
	if how["open"]+how["check"] == 0 {
		t.Errorf("no damage was found: %v", how)
	}
}

// damageFileAt removes a file, cuts it or flips a bit of it.
func damageFileAt(t *testing.T, rng *rand.Rand, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	switch k := rng.IntN(6); {
	case k == 0 || len(content) == 0:
		err = os.Remove(path)
	case k == 1:
		err = os.Truncate(path, rng.Int64N(int64(len(content))))
	default:
		content[rng.IntN(len(content))] ^= 1 << rng.IntN(8)
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A check reads what is on the disk, also where a block is in memory from before it was damaged. The next opening
// knows.
func TestCheckReadsTheDisk(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s := openTest(t, dir, unhurried())
	addTables(t, s, 1)
	if err := s.Check(ctx); err != nil {
		t.Fatal(err)
	}
	read := func() error { return s.Scan(ctx, nil, nil, func(_, _ []byte) error { return nil }) }
	if err := read(); err != nil {
		t.Fatal(err)
	}
	damageTable(t, dir)
	if err := read(); err != nil {
		t.Errorf("the block is in memory: %v", err)
	}
	if err := s.Check(ctx); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("check: %v", err)
	}
	closeTest(t, s)
	if _, err := Open(dir, unhurried()); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("it is opened again: %v", err)
	}
}

// A compaction that meets damage ends the store with an error, which the next update gets; the process
// goes on.
func TestACompactionMeetsDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	s := openTest(t, dir, unhurried())
	addTables(t, s, 2)
	damageTable(t, dir)
	if err := s.Compact(ctx); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("compacting: %v", err)
	}
	if err := s.Update(ctx, []journal.Pair{pair("a", "b")}); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("an update: %v", err)
	}
	if err := s.Close(); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("close: %v", err)
	}
	if _, err := Open(dir, unhurried()); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("opening it again: %v", err)
	}
}

// unhurried is a store that compacts only what it is told to.
func unhurried() Options { return Options{MemoryBytes: MinMemory, Group: testGroup, idle: true} }

// addTables writes n tables with the same keys.
func addTables(t *testing.T, s *Store, n int) {
	t.Helper()
	for g := range n {
		fillTest(t, s, 1000, g)
		if err := s.Delete(context.Background(), [][]byte{[]byte("never")}); err != nil {
			t.Fatal(err)
		}
	}
}

// damageTable damages the first data of the first table in a store's directory.
func damageTable(t *testing.T, dir string) string {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*", "*.sst"))
	if err != nil || len(tables) == 0 {
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
	return tables[0]
}

// While there is no room for a compaction, updates and reads go on; then it is made.
func TestNoRoomForACompaction(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	o := small()
	var full atomic.Bool
	var asked atomic.Int64
	full.Store(true)
	o.Room = func(bytes int64) error {
		if asked.Add(1); full.Load() && bytes > 0 {
			return &journal.Error{Op: "space", Kind: journal.KindFull, Detail: "no room"}
		}
		return nil
	}
	s := openTest(t, t.TempDir(), o)
	for g := range 20 {
		fillTest(t, s, 1000, g)
		if err := s.Delete(ctx, [][]byte{[]byte("never")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Compact(ctx); journal.KindOf(err) != journal.KindFull {
		t.Errorf("compacting: %v", err)
	}
	if n := s.Stats().Levels; n < 20 {
		t.Errorf("%d tables, although there was no room to compact any", n)
	}
	if _, ok, err := s.Get(ctx, []byte("g00/000000")); !ok || err != nil {
		t.Errorf("get: %v, %v", ok, err)
	}
	full.Store(false)
	for err := s.Compact(ctx); err != nil; err = s.Compact(ctx) { // one that had begun before may fail yet
		if journal.KindOf(err) != journal.KindFull {
			t.Fatal(err)
		}
	}
	if n := s.Stats().Levels; n > 1 || asked.Load() == 0 {
		t.Errorf("%d tables, room was asked for %d times", n, asked.Load())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// What a crash left of a Clear is removed, and nothing else.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTest(t, dir, small())
	fillTest(t, s, 10, 0)
	closeTest(t, s)
	path := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.CopyFS(path("00000002"), os.DirFS(path("00000001"))),
		os.WriteFile(path("lineage"), []byte("x"), 0o600),
		os.WriteFile(path("2"), []byte("x"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{true, false} {
		o := small()
		o.ReadOnly = readOnly
		s := openTest(t, dir, o)
		if ok, err := s.Has(t.Context(), []byte("g00/000000")); !ok || err != nil {
			t.Error(ok, err)
		}
		closeTest(t, s)
		for name, stays := range map[string]bool{"00000001": readOnly, "00000002": true, "lineage": true, "2": true} {
			if _, err := os.Stat(path(name)); (err == nil) != stays {
				t.Errorf("read only: %t, %s: %v", readOnly, name, err)
			}
		}
	}
}

// A store that is open for reading only, or closed, refuses what it has to.
func TestRefusals(t *testing.T) {
	t.Parallel()
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
			"clear": s.Clear(ctx), "compact": s.Compact(ctx), "set aside": s.SetAside(ctx),
			"delete range": s.DeleteRange(ctx, []byte("a"), []byte("b")),
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
	err := s.Scan(canceled, nil, nil, func(_, _ []byte) error { return nil })
	if journal.KindOf(err) != journal.KindCanceled {
		t.Errorf("a scan whose context has ended: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// slowCompactions is a file system on which no compaction gets on until it may.
type slowCompactions struct {
	vfs.FS
	begun chan struct{} // of capacity 1
	may   chan struct{}
}

func (f slowCompactions) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if category == ofCompactions {
		select {
		case f.begun <- struct{}{}:
		default:
		}
		<-f.may
	}
	return f.FS.Create(name, category)
}

// After a kill there may be much to compact. Opening does not wait for it.
func TestOpenDoesNotWaitForACompaction(t *testing.T) {
	dir := t.TempDir()
	o := unhurried()
	s := openTest(t, dir, o)
	addTables(t, s, 2*l0Tables)
	closeTest(t, s)

	disk := slowCompactions{vfs.Default, make(chan struct{}, 1), make(chan struct{})}
	o.idle, o.fs = false, disk
	opened := make(chan *Store, 1)
	go func() {
		s, err := Open(dir, o)
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	late := time.AfterFunc(20*time.Second, func() {
		t.Error("opening waits for a compaction")
		close(disk.may)
	})
	if s = <-opened; s == nil || !late.Stop() {
		return
	}
	<-disk.begun // it is made up for
	close(disk.may)
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Levels; n > l0Tables {
		t.Errorf("a read looks into %d levels after the compaction", n)
	}
	closeTest(t, s)
}

// The empty prefix is that of all keys, also if the slice is not nil. Pebble, when it checks its own invariants as with
// -race, panics for an empty bound of an iterator that had another one before.
func TestAnEmptyPrefix(t *testing.T) {
	s := openTest(t, t.TempDir(), unhurried())
	fillTest(t, s, 10, 0)
	addTables(t, s, 1)
	want := 0
	for i := range 20 {
		empty := [][]byte{nil, {}}[i%2]
		if _, _, err := s.Last(t.Context(), []byte("some prefix")); err != nil {
			t.Fatal(err)
		}
		n := 0
		err := s.Scan(t.Context(), empty, empty, func(_, _ []byte) error { n++; return nil })
		if want = max(want, n); err != nil || n != want || n < 10 {
			t.Errorf("%d entries: %v", n, err)
		}
		if key, ok, err := s.Last(t.Context(), empty); err != nil || !ok || len(key) == 0 {
			t.Errorf("the last key is %q (%v): %v", key, ok, err)
		}
	}
	closeTest(t, s)
}

// replacedTables is a file system on which a compaction replaces the table that is opened next.
type replacedTables struct {
	vfs.FS
	compact atomic.Pointer[func()]
}

func (f *replacedTables) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if compact := f.compact.Swap(nil); compact != nil {
		(*compact)()
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	return f.FS.Open(name, o...)
}

func TestCheckWhileTablesAreReplaced(t *testing.T) {
	dir := t.TempDir()
	o := unhurried()
	disk := &replacedTables{FS: vfs.Default}
	o.fs = disk
	s := openTest(t, dir, o)
	addTables(t, s, 3)
	compact := func() {
		if err := s.Compact(t.Context()); err != nil {
			t.Error(err)
		}
	}
	disk.compact.Store(&compact)
	if err := s.Check(t.Context()); err != nil || disk.compact.Load() != nil {
		t.Errorf("a table that a compaction has replaced: %v", err)
	}
	nothing := func() {}
	disk.compact.Store(&nothing)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("a table that could not be found once: %v", err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	for _, path := range tables {
		// Pebble removes those that were replaced.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := s.Check(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a table that is missing: %v", err)
	}
	closeTest(t, s)
}
