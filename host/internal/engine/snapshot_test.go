package engine

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// deposits makes n deposits of 1 and waits for each.
func deposits(t *testing.T, e *Engine, key string, n int) {
	t.Helper()
	for range n {
		if _, err := send(e, command("deposit", key, "", "1")); err != nil {
			t.Fatal(err)
		}
	}
}

// wantBalance asks for a balance.
func wantBalance(t *testing.T, e *Engine, key string, n int) {
	t.Helper()
	r, err := ask(e, balance(key))
	if err != nil || string(r.Data) != fmt.Sprint(n) || int(r.Version) != n {
		t.Errorf("%s has %s at version %d, %v; want %d", key, r.Data, r.Version, err, n)
	}
}

// wantSnapshots compares the counters.
func wantSnapshots(t *testing.T, e *Engine, taken, used, refused uint64) {
	t.Helper()
	if _, c := counted(t, e); c.SnapshotsTaken != taken || c.SnapshotsUsed != used || c.SnapshotsRefused != refused {
		t.Errorf("%d snapshots are taken, %d used, %d refused; want %d, %d, %d", c.SnapshotsTaken, c.SnapshotsUsed,
			c.SnapshotsRefused, taken, used, refused)
	}
}

// An entity that is evicted leaves a snapshot if it has had enough events since its last one, and
// is hydrated from it.
func TestSnapshotOnEviction(t *testing.T) {
	e, _, j := startBank(t, 1, func(o *Options) { o.Spec.Limits.ResidentEntities = 1 })
	deposits(t, e, "alice", evictionTail-1)
	wantBalance(t, e, "bob", 0) // evicts alice
	wantSnapshots(t, e, 0, 0, 0)
	deposits(t, e, "alice", 1)
	wantBalance(t, e, "bob", 0)
	wantSnapshots(t, e, 1, 0, 0)
	wantBalance(t, e, "alice", evictionTail)
	wantBalance(t, e, "bob", 0) // she has not changed since
	wantSnapshots(t, e, 1, 1, 0)
	deposits(t, e, "alice", evictionTail)
	wantBalance(t, e, "bob", 0)
	wantSnapshots(t, e, 2, 2, 0)
	for j.Stats().Snapshots < 2 {
		runtime.Gosched()
	}
	s, ok, err := j.Snapshot(t.Context(), "bank", "alice")
	if !ok || err != nil || s.Version != 2*evictionTail || string(s.State) != "32 in form 0" {
		t.Errorf("got %+v, %v, %v", s, ok, err)
	}
	// With large states it takes more events.
	big, _, _ := startBank(t, 1, nil)
	wantBalance(t, big, "bob", 0) // so that it has a guest
	counted(t, big)
	s1 := big.shards[0]
	s1.snapshots.bytes = 100 * bytesPerEvent
	for events, due := range map[service.Version]bool{
		evictionTail: false, evictionTail + 99: false, evictionTail + 100: true,
	} {
		if s1.due(&entity{version: 7 + events, snapshot: 7}, true) != due {
			t.Errorf("after %d events of an entity with a big state: want %v", events, due)
		}
	}
}

// Snapshots can be turned off; existing ones are still used.
func TestSnapshotsOff(t *testing.T) {
	disk := journaltest.NewMemory()
	j := openJournal(t, disk.Storage())
	o, _ := bankOptions(t, j, 1)
	o.Spec.Settings.SnapshotEvery = 5
	e := start(t, o)
	deposits(t, e, "alice", 12)
	wantSnapshots(t, e, 2, 0, 0)
	o, _ = bankOptions(t, j, 1)
	o.Spec.Limits.ResidentEntities = 1
	o.Spec.Settings.SnapshotEvery = -1
	e = start(t, o)
	deposits(t, e, "bob", 100)
	wantBalance(t, e, "alice", 12)
	wantSnapshots(t, e, 0, 1, 0)
}

// A snapshot is used by every build of a module with the same state schema. A build with another
// schema does not use it, and replaces it by its own.
func TestSnapshotsAcrossDeployments(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	deploy := func(digest byte, schema uint32) *Engine {
		o, _ := bankOptions(t, j, 1)
		o.Spec.Module = service.Digest{digest}
		o.Spec.Settings.SnapshotEvery = 10
		o.withSchema(t, schema)
		return start(t, o)
	}
	e := deploy(1, 3)
	deposits(t, e, "alice", 11)
	wantSnapshots(t, e, 1, 0, 0)
	e = deploy(2, 3)
	wantBalance(t, e, "alice", 11)
	wantSnapshots(t, e, 0, 1, 0)
	for _, schema := range []uint32{4, 3} { // also with a lower number
		e = deploy(3, schema)
		wantBalance(t, e, "alice", 11)
		wantSnapshots(t, e, 1, 0, 1) // replayed from the first event, which are enough for another snapshot
		s, ok, err := j.Snapshot(t.Context(), "bank", "alice")
		if !ok || err != nil || s.Version != 11 || s.Schema != schema || s.Module != (journal.Digest{3}) {
			t.Errorf("got %+v, %v, %v", s, ok, err)
		}
	}
}

// A build that makes another state from the same events, under the same schema, is warned about once. The
// order of the entities does not matter: only the schema decides, so either all snapshots are used or none.
func TestSnapshotsOfABuildThatAppliedEventsOtherwise(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	const accounts = 3 * maxChecks
	deploy := func(digest byte, schema uint32, double bool) (*Engine, *lines) {
		o, guests := bankOptions(t, j, 1)
		o.Spec.Module = service.Digest{digest}
		o.Spec.Settings.SnapshotEvery = 2
		o.withSchema(t, schema)
		guests[0].double = double
		told := &lines{}
		o.Logger = slog.New(slog.NewTextHandler(told, nil))
		return start(t, o), told
	}
	all := func(e *Engine, want string) {
		t.Helper()
		for i := range accounts {
			r, err := ask(e, balance(fmt.Sprint("a", i)))
			if err != nil || string(r.Data) != want || r.Version != 3 {
				t.Errorf("account %d has %s at version %d, %v; want %s", i, r.Data, r.Version, err, want)
			}
		}
	}
	e, _ := deploy(1, 0, false)
	for i := range accounts {
		deposits(t, e, fmt.Sprint("a", i), 3)
	}
	wantSnapshots(t, e, accounts, 0, 0)
	e, told := deploy(2, 0, false) // the same code, built again
	all(e, "3")
	wantSnapshots(t, e, 0, accounts, 0)
	if n := e.shards[0].snapshots.checks; n != maxChecks || told.count("another state") != 0 {
		t.Errorf("%d were checked, want %d; told %s", n, maxChecks, told)
	}
	e, told = deploy(3, 0, true)
	all(e, "4") // 2 from the snapshot, and the third event counts twice
	wantSnapshots(t, e, 0, accounts, 0)
	if told.count("another state") != 1 || told.count("entity=a0") != 1 {
		t.Errorf("told: %s", told)
	}
	e, told = deploy(3, 1, true) // now the author has changed the schema
	all(e, "6")
	wantSnapshots(t, e, accounts, 0, accounts) // all are replaced at once
	if told.count("another state") != 0 {
		t.Errorf("told: %s", told)
	}
}

// A snapshot that is damaged, or ahead of the journal, is not used, and the events are replayed.
func TestUselessSnapshots(t *testing.T) {
	ctx := context.Background()
	disk := journaltest.NewMemory()
	j, err := commitlog.Open(ctx, disk.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o, _ := bankOptions(t, j, 1)
	o.Spec.Settings.SnapshotEvery = 4
	e := start(t, o)
	deposits(t, e, "alice", 4)
	if err := e.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	var entry journal.Pair
	err = disk.CrashClone(0).Index().Scan(ctx, []byte("s"), []byte("s"), func(k, v []byte) error {
		entry = journal.Pair{Key: append([]byte{}, k...), Value: append([]byte{}, v...)}
		return nil
	})
	if err != nil || entry.Key == nil {
		t.Fatalf("no snapshot, %v", err)
	}
	damaged := journal.Pair{Key: entry.Key, Value: append([]byte{}, entry.Value...)}
	damaged.Value[len(damaged.Value)-1] ^= 1
	for _, c := range []struct {
		name   string
		put    journal.Pair
		events int // that the log still has
	}{{"damaged", damaged, 4}, {"ahead", entry, 3}} {
		m := disk.CrashClone(0)
		if c.events < 4 {
			m.Lose("bank", 3)
			if err := commitlog.Rebuild(ctx, m.Storage(), nil); err != nil { // somebody accepted it
				t.Fatal(err)
			}
		}
		if err := m.Index().Update(ctx, []journal.Pair{c.put}); err != nil {
			t.Fatal(err)
		}
		o, _ := bankOptions(t, openJournal(t, m.Storage()), 1)
		e := start(t, o)
		wantBalance(t, e, "alice", c.events)
		wantSnapshots(t, e, 1, 0, 1) // in its place
		deposits(t, e, "alice", 1)
		wantBalance(t, e, "alice", c.events+1)
		if t.Failed() {
			t.Fatal(c.name)
		}
	}
}

// An entity whose state cannot be encoded is the only one without snapshots, whether the guest
// reports an error or breaks, and however many such entities there are.
func TestStatesThatCannotBeEncoded(t *testing.T) {
	for _, kind := range []service.Kind{service.KindFault, service.KindTrap} {
		synctest.Test(t, func(t *testing.T) {
			j := openJournal(t, journaltest.NewMemory().Storage())
			e, g, told := bankOn(t, j, func(o *Options) { o.Spec.Settings.SnapshotEvery = 10 })
			g.encode = func(a *account) error {
				if strings.HasPrefix(string(a.key), "nan") {
					return &service.Error{Kind: kind, Code: "error", Message: "the state cannot be encoded: NaN"}
				}
				return nil
			}
			const bad, good = 8, 8
			for i := range bad { // more in a row than maxSnapshotFaults
				deposits(t, e, fmt.Sprint("nan", i), 10)
				wantBalance(t, e, fmt.Sprint("nan", i), 10)
				time.Sleep(retryBackoff.Max)
			}
			for i := range good {
				deposits(t, e, fmt.Sprint("a", i), 10)
			}
			wantSnapshots(t, e, good, 0, 0)
			if n := told.count("cannot be encoded; it goes on"); n != bad {
				t.Errorf("told %d times: %s", n, told)
			}
			// The faulty ones go on, and are asked again when their version has doubled.
			deposits(t, e, "nan0", 9)
			if n := told.count("cannot be encoded; it goes on"); n != bad {
				t.Errorf("told %d times", n)
			}
			deposits(t, e, "nan0", 1)
			wantBalance(t, e, "nan0", 20)
			if n := told.count("cannot be encoded; it goes on"); n != bad+1 {
				t.Errorf("told %d times", n)
			}
			f := e.Faults()
			if f.Count != bad || f.Latest[0].Key != "nan0" || f.Latest[0].Cannot != service.CannotSnapshot ||
				f.Latest[0].Version != 20 || f.Latest[0].Failed != 2 || !strings.Contains(f.Latest[0].Problem, "NaN") {
				t.Errorf("%+v", f)
			}
			encode := g.encode
			g.encode = nil
			time.Sleep(retryBackoff.Max)
			deposits(t, e, "nan0", 20)
			synctest.Wait() // the snapshot comes after the reply
			if f := e.Faults(); f.Count != bad-1 {
				t.Errorf("%+v", f)
			}
			if kind != service.KindFault {
				return // after a reset because of one, the others wait a moment
			}
			g.encode = encode
			for i := range good { // a faulty one delays no one
				deposits(t, e, fmt.Sprint("nan", bad+i), 10)
				deposits(t, e, fmt.Sprint("b", i), 10)
			}
			wantSnapshots(t, e, good+1+good, 0, 0)
		})
	}
}

// A module that cannot encode any state is not asked for each one.
func TestAModuleWithoutSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, g, told := bankOn(t, openJournal(t, journaltest.NewMemory().Storage()), func(o *Options) {
			o.Spec.Settings.SnapshotEvery = 2
		})
		g.encode = func(*account) error { return service.Errorf(service.KindFault, "what is a snapshot") }
		for i := range 100 {
			deposits(t, e, fmt.Sprint("a", i), 2)
		}
		if n := told.count("cannot be encoded"); n != maxSnapshotFaults {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(retryBackoff.Max)
		for i := range 100 {
			deposits(t, e, fmt.Sprint("b", i), 2)
		}
		if n := told.count("cannot be encoded"); n != maxSnapshotFaults+1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// If the snapshot of one entity breaks the guest, the events are used, and another snapshot is taken. If that
// happens again and again, snapshots are not used for a while.
func TestSnapshotsThatBreakTheGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		e, _, _ := bankOn(t, j, func(o *Options) { o.Spec.Settings.SnapshotEvery = 2 })
		const accounts = 10
		for i := range accounts {
			deposits(t, e, fmt.Sprint("a", i), 3)
		}
		e, g, _ := bankOn(t, j, func(o *Options) { o.Spec.Settings.SnapshotEvery = 1000 })
		g.decode = func(state []byte) error {
			return service.Errorf(service.KindTrap, "unreachable")
		}
		for i := range accounts {
			wantBalance(t, e, fmt.Sprint("a", i), 3)
		}
		_, c := counted(t, e)
		if c.Resets != maxSnapshotFaults || c.SnapshotsRefused != maxSnapshotFaults ||
			c.SnapshotsTaken != maxSnapshotFaults {
			t.Errorf("%+v", c)
		}
		if f := e.Faults(); !f.IsZero() {
			t.Errorf("%+v", f)
		}
	})
}
