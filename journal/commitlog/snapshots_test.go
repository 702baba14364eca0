package commitlog_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// stored are the entries of a storage's snapshots.
func stored(t *testing.T, s journal.Storage) (all []journal.Pair) {
	t.Helper()
	err := s.Index.Scan(context.Background(), []byte("s"), []byte("s"), func(k, v []byte) error {
		all = append(all, journal.Pair{Key: append([]byte{}, k...), Value: append([]byte{}, v...)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hand hands a commit in; done hears of it.
func hand(t *testing.T, j *commitlog.Journal, key string, at journal.Version, id string, events int, done func(error)) {
	t.Helper()
	err := j.Append(context.Background(), journaltest.Commit("bank", key, at, id, events),
		func(_ journal.Receipt, err error) { done(err) })
	if err != nil {
		t.Fatal(err)
	}
}

// A snapshot of a state that is ahead of the disk is seen at once, as its events are,
// and is not on disk before they are.
func TestSnapshotsAreNeverAhead(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	gate := make(chan struct{})
	m.OnAppend(func([]journal.Block) { <-gate })
	// With so little room the indexer waits for no more than half of the commits.
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{MaxGroupCommits: 1, MaxPendingCommits: 4})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 4)
	for v := range journal.Version(4) {
		hand(t, j, "alice", v, fmt.Sprint("c", v), 1, func(err error) { told <- err })
		if v%2 == 1 && !j.PutSnapshot(ctx, "bank", "alice", journaltest.Snapshot("bank", "alice", v+1)) {
			t.Fatal("not kept")
		}
	}
	if s, ok, err := j.Snapshot(ctx, "bank", "alice"); !ok || err != nil || s.Version != 4 {
		t.Errorf("got %+v, %v, %v", s, ok, err)
	}
	for v := range 4 {
		if all := stored(t, m.Storage()); len(all) > 0 && v < 2 {
			t.Errorf("there is one on disk, and %d commits", v)
		}
		gate <- struct{}{}
		if err := <-told; err != nil {
			t.Fatal(err)
		}
		for v%2 == 1 && j.Stats().Snapshots < uint64(v/2+1) { // it follows without a further commit
			runtime.Gosched()
		}
		for lost := range 3 {
			soundSnapshots(t, m.CrashClone(lost), fmt.Sprint("after ", v+1))
		}
	}
	if s := j.Stats(); s.PendingSnapshotBytes != 0 || s.SnapshotsDropped != 0 || s.SnapshotBytes == 0 {
		t.Errorf("stats %+v", s)
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
}

// soundSnapshots opens a journal and holds every snapshot that it finds to the log: of
// a version that its entity has, and with the state that it was put with.
func soundSnapshots(t *testing.T, m *journaltest.Memory, when string) {
	t.Helper()
	ctx := context.Background()
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	for _, key := range []string{"alice", "k0", "k1", "k2"} {
		s, ok, err := j.Snapshot(ctx, "bank", key)
		if err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if !ok {
			continue
		}
		at, err := j.Load(ctx, "bank", key, s.Version, func(*journal.Event) error { return nil })
		if err != nil || at < s.Version {
			t.Errorf("%s: %s is at %d, its snapshot at %d, %v", when, key, at, s.Version, err)
		}
		if want := journaltest.Snapshot("bank", key, s.Version); string(want.State) != string(s.State) {
			t.Errorf("%s: the snapshot of %s at %d says %q", when, key, s.Version, s.State)
		}
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
	report, err := verify.Run(ctx, m.CrashClone(0).Storage(), verify.Options{})
	if err != nil || report.Found > 0 {
		t.Errorf("%s: verify: %v, %v", when, report.Problems, err)
	}
}

// What rests on a commit that is void goes with it, and an older snapshot that is on
// disk stays.
func TestSnapshotOfVoidState(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journaltest.Append(j, journaltest.Commit("bank", "alice", 0, "c1", 2)); err != nil {
		t.Fatal(err)
	}
	j.PutSnapshot(ctx, "bank", "alice", journaltest.Snapshot("bank", "alice", 2))
	for j.Stats().Snapshots == 0 {
		runtime.Gosched()
	}
	gate := make(chan struct{})
	m.OnAppend(func([]journal.Block) { <-gate })
	told := make(chan error, 2)
	hand(t, j, "alice", 2, "c2", 1, func(err error) { told <- err })
	hand(t, j, "alice", 3, "c3", 1, func(err error) { told <- err })
	for v := journal.Version(3); v <= 4; v++ {
		if !j.PutSnapshot(ctx, "bank", "alice", journaltest.Snapshot("bank", "alice", v)) {
			t.Fatal("not kept")
		}
	}
	m.FailAt(1)
	gate <- struct{}{}
	for range 2 {
		if err := <-told; journal.KindOf(err) != journal.KindFailed {
			t.Errorf("got %v", err)
		}
	}
	m.FailAt(0)
	if s, ok, err := j.Snapshot(ctx, "bank", "alice"); !ok || err != nil || s.Version != 2 {
		t.Errorf("got %+v, %v, %v", s, ok, err)
	}
	if j.PutSnapshot(ctx, "bank", "alice", journaltest.Snapshot("bank", "alice", 2)) {
		t.Error("a failed journal keeps one")
	}
	if s := j.Stats(); s.PendingSnapshotBytes != 0 || s.SnapshotsDropped != 3 {
		t.Errorf("stats %+v", s)
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
	soundSnapshots(t, m.CrashClone(0), "after the failure")
}

// Snapshots that wait have a bound, and a disk that stands still makes nobody wait
// for them.
func TestSnapshotsAreDroppedUnderPressure(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	gate := make(chan struct{})
	m.OnAppend(func([]journal.Block) { <-gate })
	const bound = 3 << 10
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{MaxPendingSnapshotBytes: bound})
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for i := range 10 {
		key := fmt.Sprint("k", i)
		hand(t, j, key, 0, "c"+key, 1, func(error) {})
		s := journaltest.Snapshot("bank", key, 1)
		s.State = make([]byte, 1000)
		if j.PutSnapshot(ctx, "bank", key, s) {
			kept++
		}
	}
	if s := j.Stats(); kept != 2 || s.SnapshotsDropped != 8 || s.PendingSnapshotBytes > bound {
		t.Errorf("%d are kept, stats %+v", kept, s)
	}
	close(gate)
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
	if all := stored(t, m.CrashClone(0).Storage()); len(all) != kept {
		t.Errorf("%d are on disk", len(all))
	}
}

// One snapshot may be larger than the bound, or it could never be kept.
func TestASnapshotLargerThanTheBound(t *testing.T) {
	ctx := t.Context()
	m := journaltest.NewMemory()
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{MaxPendingSnapshotBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	hand(t, j, "k", 0, "c", 1, func(error) {})
	s := journaltest.Snapshot("bank", "k", 1)
	s.State = make([]byte, 1000)
	if !j.PutSnapshot(ctx, "bank", "k", s) {
		t.Error("it is dropped")
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
	if all := stored(t, m.CrashClone(0).Storage()); len(all) != 1 {
		t.Errorf("%d are on disk", len(all))
	}
}

// A damaged snapshot is an error that says so, never a state, and another's state
// under an entity's key is damage. The events are as good as ever, and verify names it.
func TestDamagedSnapshot(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"alice", "bobby"} {
		if _, err := journaltest.Append(j, journaltest.Commit("bank", key, 0, "c-"+key, 1)); err != nil {
			t.Fatal(err)
		}
		j.PutSnapshot(ctx, "bank", key, journaltest.Snapshot("bank", key, 1))
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	good := stored(t, m.CrashClone(0).Storage())
	for bit := range 8*len(good[0].Value) + 1 {
		bad := append([]byte{}, good[0].Value...)
		if bit == 8*len(bad) {
			bad = good[1].Value // the state of bobby
		} else {
			bad[bit/8] ^= 1 << (bit % 8)
		}
		c := m.CrashClone(0)
		if err := c.Index().Update(ctx, []journal.Pair{{Key: good[0].Key, Value: bad}}); err != nil {
			t.Fatal(err)
		}
		report, err := verify.Run(ctx, c.Storage(), verify.Options{})
		if err != nil || report.Found != 1 || report.Logs["bank"].Snapshots != 1 {
			t.Fatalf("bit %d: verify: %v, %v", bit, report.Problems, err)
		}
		j, err := commitlog.Open(ctx, c.Storage(), commitlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s, ok, err := j.Snapshot(ctx, "bank", "alice"); ok || journal.KindOf(err) != journal.KindCorrupt ||
			s.State != nil {
			t.Fatalf("bit %d: got %+v, %v, %v", bit, s, ok, err)
		}
		if v, err := j.Load(ctx, "bank", "alice", 0, func(*journal.Event) error { return nil }); v != 1 || err != nil {
			t.Fatalf("bit %d: alice is at %d, %v", bit, v, err)
		}
		// The next one takes its place.
		if !j.PutSnapshot(ctx, "bank", "alice", journaltest.Snapshot("bank", "alice", 1)) {
			t.Fatal("not kept")
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		soundSnapshots(t, c.CrashClone(0), "mended")
	}
}

// A snapshot of a version that the log has lost is told from the entity's own version.
func TestSnapshotAheadOfTheLog(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "alice", journal.Version(i), fmt.Sprint("c", i),
			1)); err != nil {
			t.Fatal(err)
		}
	}
	j.PutSnapshot(ctx, "bank", "alice", journaltest.Snapshot("bank", "alice", 3))
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	ahead := stored(t, m.CrashClone(0).Storage())
	c := m.CrashClone(0)
	c.Lose("bank", 2)
	if err := commitlog.Rebuild(ctx, c.Storage(), nil); err != nil { // the log is taken as it is
		t.Fatal(err)
	}
	if all := stored(t, c.Storage()); len(all) != 0 {
		t.Error("rebuilding keeps snapshots that nothing covers")
	}
	if err := c.Index().Update(ctx, ahead); err != nil {
		t.Fatal(err)
	}
	report, err := verify.Run(ctx, c.Storage(), verify.Options{})
	if err != nil || report.Found != 1 {
		t.Errorf("verify: %v, %v", report.Problems, err)
	}
	if j, err = commitlog.Open(ctx, c.Storage(), commitlog.Options{}); err != nil {
		t.Fatal(err)
	}
	s, ok, err := j.Snapshot(ctx, "bank", "alice")
	if !ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
	for range 2 { // the second time from memory
		if at, err := j.Load(ctx, "bank", "alice", s.Version, func(*journal.Event) error { return nil }); at != 2 ||
			err != nil {
			t.Errorf("alice is at %d, %v; her snapshot is of %d", at, err, s.Version)
		}
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
}

// For n = 1, 2, 3 … the n-th operation of the storage fails, and all after it. After
// each the machine loses power and up to three updates of the index, and no snapshot
// is ahead of the log or other than it was put.
func TestEachOperationFailsWithSnapshots(t *testing.T) {
	ctx := context.Background()
	for n := 1; ; n++ {
		m := journaltest.NewMemory()
		m.FailAt(n)
		if j, err := commitlog.Open(ctx, m.Storage(),
			commitlog.Options{MaxGroupCommits: 2, VersionCache: 1}); err == nil {
			versions := map[string]journal.Version{}
			for i := range 12 {
				key := fmt.Sprint("k", i%3)
				c := journaltest.Commit("bank", key, versions[key], fmt.Sprint("c", i), i%4)
				if err := j.Append(ctx, c, func(journal.Receipt, error) {}); err != nil {
					break
				}
				versions[key] += journal.Version(i % 4)
				if i%2 == 0 {
					j.PutSnapshot(ctx, "bank", key, journaltest.Snapshot("bank", key, versions[key]))
				}
				j.Snapshot(ctx, "bank", key)
			}
			j.Close(ctx)
		}
		for lost := range 4 {
			soundSnapshots(t, m.CrashClone(lost), fmt.Sprint("operation ", n))
		}
		if t.Failed() {
			return
		}
		if m.Operations() < n {
			t.Logf("%d operations, each failed once", n-1)
			return
		}
	}
}

// Opening reads as much of a log with many entities as of one with few: nothing is
// loaded before it is touched.
func TestOpeningLoadsNothing(t *testing.T) {
	ctx := context.Background()
	operations := func(entities int) int {
		m := journaltest.NewMemory()
		j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range entities {
			key := fmt.Sprint("k", i)
			hand(t, j, key, 0, "c"+key, 2, func(error) {})
			j.PutSnapshot(ctx, "bank", key, journaltest.Snapshot("bank", key, 2))
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		m = m.CrashClone(0)
		m.FailAt(0)
		if j, err = commitlog.Open(ctx, m.Storage(), commitlog.Options{}); err != nil {
			t.Fatal(err)
		}
		n := m.Operations()
		if j.Head("bank") != journal.Position(2*entities) {
			t.Errorf("the head is %d", j.Head("bank"))
		}
		if err := j.Close(ctx); err != nil {
			t.Error(err)
		}
		return n
	}
	if few, many := operations(1), operations(5_000); few != many {
		t.Errorf("opening takes %d operations with one entity, %d with many", few, many)
	}
}

// However long a reader takes over an entity, commits go on, and so do other readers.
func TestReadersHoldUpNobody(t *testing.T) {
	ctx := context.Background()
	j, err := commitlog.Open(ctx, journaltest.NewMemory().Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	commit := func(key string, at journal.Version) {
		t.Helper()
		if _, err := journaltest.Append(j, journaltest.Commit("bank", key, at, fmt.Sprint(key, at), 1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"alice", "bob", "carol"} {
		commit(key, 0)
	}
	var deep func(keys []string)
	deep = func(keys []string) { // in the middle of loading one, the next, and then commits
		if len(keys) == 0 {
			for v := range journal.Version(20) {
				commit("alice", 1+v)
				commit("dave", v)
			}
			return
		}
		events := 0
		v, err := j.Load(ctx, "bank", keys[0], 0, func(*journal.Event) error {
			events++
			deep(keys[1:])
			return nil
		})
		if v != 1 || events != 1 || err != nil {
			t.Errorf("%s is at %d with %d events, %v", keys[0], v, events, err)
		}
	}
	deep([]string{"alice", "bob", "carol"})
	if v, err := j.Load(ctx, "bank", "alice", 0, func(*journal.Event) error { return nil }); v != 21 || err != nil {
		t.Errorf("alice is at %d, %v", v, err)
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
}
