package host_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// Tests run beside each other, but for those that measure time or look at the whole process, and those that start
// processes: until it has begun its program, a process holds all locks of directories that its parent had.
func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		beVictim(dir)
	}
	if len(os.Args) > 1 && os.Args[1] == "compile" {
		os.Exit(host.CompilerMain(os.Args[2:]))
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

func add(key service.Key) service.Command {
	return service.Command{Service: "tally", Key: key, Type: "add"}
}

// A host with a compiler process compiles a module once: after a restart it needs no compiler, not even one
// that works.
func TestCompilesInAProcessOfItsOwn(t *testing.T) { // not beside others, as it starts processes; see TestMain
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	compiler := []string{self, "compile"}
	h := hosttest.New(t, func(o *host.Options) { o.Compiler = compiler })
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("a"))
	copy(compiler, []string{"/bin/sh", "-c"})
	h.Restart()
	if r := h.MustSend(add("a")); r.Version != 2 {
		t.Errorf("after the restart: %+v", r)
	}
	if _, err := h.Upload(t.Context(), testguest.Counter("other"), nil); service.KindOf(err) != service.KindInternal {
		t.Errorf("with a compiler that does not work: %v", err)
	}
	_, err = host.Open(t.Context(), host.Options{Dir: t.TempDir(), Compiler: []string{"/nowhere/to/be/found"}})
	if service.KindOf(err) != service.KindInvalid {
		t.Errorf("with a compiler that is not there: %v", err)
	}
}

func TestNothingIsLostByARestart(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	for i := range 10 {
		r := h.MustSend(add(service.Key(fmt.Sprint("k", i%3))))
		if int(r.Position) != i+1 || int(r.Version) != i/3+1 || string(r.Data) != fmt.Sprint(i/3+1) || r.Events != 1 {
			t.Errorf("command %d: %+v", i, r)
		}
	}
	h.Restart()
	st, err := h.Status("tally")
	if err != nil || st.State != service.StateRunning || st.Head != 10 {
		t.Fatalf("after the restart: %+v, %v", st, err)
	}
	if r := h.MustSend(add("k0")); r.Position != 11 || r.Version != 5 {
		t.Errorf("after the restart: %+v", r)
	}
	q, err := h.Query(t.Context(), service.Query{Service: "tally", Key: "k1", Type: "count"})
	if err != nil || string(q.Data) != "3" || q.Version != 3 {
		t.Errorf("query: %s at %d, %v", q.Data, q.Version, err)
	}
}

// Entities that were evicted, or dropped by a restart or a deployment, are hydrated from snapshots by the
// guest, and have all later events.
func TestEntitiesComeBackFromSnapshots(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Settings.SnapshotEvery = 10 })
	d := service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
		Limits: service.Limits{ResidentEntities: 2}, Settings: service.Settings{Shards: 1}}
	if st, err := h.Deploy(t.Context(), d); err != nil || st.Spec.Settings.SnapshotEvery != 10 {
		t.Fatalf("deployed %+v, %v", st.Spec, err)
	}
	for i := range 5 * 25 {
		h.MustSend(add(service.Key(fmt.Sprint("k", i%5))))
	}
	used := func(least uint64) {
		t.Helper()
		for i := range 5 {
			q, err := h.Query(t.Context(), service.Query{Service: "tally", Key: service.Key(fmt.Sprint("k", i)),
				Type: "count"})
			if err != nil || string(q.Data) != "25" || q.Version != 25 {
				t.Errorf("k%d has %s at %d, %v", i, q.Data, q.Version, err)
			}
		}
		st, err := h.Status("tally")
		if c := st.Counters; err != nil || c.SnapshotsUsed < least || c.SnapshotsRefused > 0 {
			t.Errorf("counters %+v, %v", c, err)
		}
	}
	used(10) // two places for five entities
	h.Restart()
	used(5)
	d.Settings.SnapshotEvery = -1
	if st, err := h.Deploy(t.Context(), d); err != nil || st.Spec.Settings.SnapshotEvery != -1 {
		t.Fatalf("deployed %+v, %v", st.Spec, err)
	}
	used(10)
}

func TestARepeatedCommandHasOneEffect(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	c := add("k")
	c.ID = "one"
	first := h.MustSend(c)
	for range 2 {
		again := h.MustSend(c)
		if !again.Repeated || again.Position != first.Position || again.Version != first.Version ||
			string(again.Data) != string(first.Data) {
			t.Errorf("the repeat got %+v, the first %+v", again, first)
		}
		h.Restart()
	}
	c.Data = []byte("[]")
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindIDReused {
		t.Errorf("the same id with other data: %v", err)
	}
	c.Key = "other"
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindIDReused {
		t.Errorf("the same id for another entity: %v", err)
	} else if text := err.Error(); !strings.Contains(text, `for the command add of entity "k"`) || !strings.Contains(text, "used at 20") {
		t.Errorf("what the id was used for is not said: %s", text)
	}
}

// A command that fails harms no other command, and leaves nothing behind.
func TestFailuresAreContained(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	limits := service.Limits{Fuel: 20_000_000, CallTime: time.Minute, MemoryBytes: 2 << 20}
	for _, name := range []service.Name{"tally", "victim"} {
		if _, err := h.Deploy(t.Context(), service.Deployment{Service: name, Module: testguest.Counter(string(name)),
			Limits: limits}); err != nil {
			t.Fatal(err)
		}
	}
	h.MustSend(add("k"))
	for _, c := range []struct {
		typ  service.Type
		want service.Kind
	}{
		{"reject", service.KindRejected}, {"fault", service.KindFault}, {"trap", service.KindTrap},
		{"spin", service.KindGuestFuel}, {"grow", service.KindGuestMemory}, {"fly", service.KindUnknownType},
	} {
		cmd := add("k")
		cmd.Type = c.typ
		if _, err := h.Send(t.Context(), cmd); service.KindOf(err) != c.want {
			t.Errorf("%s: %v, want kind %v", c.typ, err, c.want)
		}
		other := add("k")
		other.Service = "victim"
		h.MustSend(other)
	}
	if r := h.MustSend(add("k")); r.Version != 2 || r.Position != 2 || string(r.Data) != "2" {
		t.Errorf("after all failures: %+v %s", r, r.Data)
	}
	wrong := service.Version(7)
	c := add("k")
	c.Expected = &wrong
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindVersionConflict {
		t.Errorf("a wrong expected version: %v", err)
	} else if e := err.(*service.Error); e.Version == nil || *e.Version != 2 {
		t.Errorf("the conflict does not say the present version: %+v", e)
	}
	c.Service = "nobody"
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindNotFound {
		t.Errorf("an unknown service: %v", err)
	}
}

var spin = service.Command{Service: "tally", Key: "k", Type: "spin"}

// deployEndless deploys a service with very high limits, in which a command may spin.
func deployEndless(t *testing.T, h *hosttest.Host) {
	t.Helper()
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
		Limits:   service.Limits{Fuel: 1 << 50, CallTime: time.Hour},
		Settings: service.Settings{Shards: 1}}); err != nil {
		t.Fatal(err)
	}
	h.MustSend(add("k"))
}

// A command whose sender has gone does not hold up its shard: it is ended, nothing is written, and the next
// one is carried out.
func TestACommandEndsWithItsSender(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	deployEndless(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := h.Send(ctx, spin)
		ended <- err
	}()
	next := make(chan service.Reply, 1)
	go func() { next <- h.MustSend(add("k")) }() // perhaps after the one that spins
	cancel()
	if err := <-ended; service.KindOf(err) != service.KindUnknown && service.KindOf(err) != service.KindCanceled {
		t.Errorf("%v", err)
	}
	if r := <-next; r.Version != 2 {
		t.Errorf("%+v", r)
	}
}

// A command that spins does not hold up the deployment of a better module: after the drain time it is ended,
// nothing is written, and the next one is carried out.
func TestACommandEndsWithItsModule(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.DrainTime = 50 * time.Millisecond })
	deployEndless(t, h)
	ended := make(chan error, 1)
	if err := h.SendAsync(spin, func(_ service.Reply, err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	for { // until it runs: commands are queued first
		if st, err := h.Status("tally"); err != nil || st.Shards[0].Queued == 0 {
			break
		}
		runtime.Gosched()
	}
	h.MustDeploy("tally", testguest.CounterWith(manifestOf("tally", "2"), nil))
	if err := <-ended; service.KindOf(err) != service.KindUnavailable {
		t.Errorf("%v", err)
	}
	if r := h.MustSend(add("k")); r.Version != 2 {
		t.Errorf("%+v", r)
	}
}

// A command that spins does not hold up the deletion of its service, and a caller of Delete who goes away
// does not undo it.
func TestACommandEndsWithItsService(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.DrainTime = 50 * time.Millisecond })
	deployEndless(t, h)
	ended := make(chan error, 1)
	if err := h.SendAsync(spin, func(_ service.Reply, err error) { ended <- err }); err != nil {
		t.Fatal(err)
	}
	for {
		if st, err := h.Status("tally"); err != nil || st.Shards[0].Queued == 0 {
			break
		}
		runtime.Gosched()
	}
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Error(err)
	}
	if err := <-ended; service.KindOf(err) != service.KindUnavailable {
		t.Errorf("the command that spun: %v", err)
	}
	if st, err := h.Status("tally"); err != nil || st.State != service.StateStopped {
		t.Errorf("the service is %s, %v", st.State, err)
	}
}

func manifestOf(name, version string) []byte {
	m := testguest.CounterManifest(name)
	m.Version = version
	return m.AppendJSON(nil)
}

func TestARefusedModuleLeavesNothing(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	for _, b := range append(testguest.Statically(), testguest.Dynamically()...) {
		_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: b.Module,
			Limits: service.Limits{Fuel: 5_000_000}})
		if err == nil {
			t.Errorf("%s was deployed", b.Name)
		}
	}
	if _, err := h.Status("tally"); service.KindOf(err) != service.KindNotFound {
		t.Errorf("there is a service of refused modules: %v", err)
	}
	if stored, err := h.Modules(); err != nil || len(stored.Modules) != 0 {
		t.Errorf("refused modules are stored: %v, %v", stored, err)
	}
}

func TestAFailedDeploymentLeavesTheOldModuleRunning(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	st := h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("k"))
	m := testguest.CounterManifest("tally")
	m.Events[0].Name, m.Events[0].Aliases = "renamed", nil
	_, err := h.Deploy(t.Context(),
		service.Deployment{Service: "tally", Module: testguest.CounterWith(m.AppendJSON(nil), nil)})
	if service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), `"added"`) {
		t.Errorf("a module that does not know an event of the log: %v", err)
	}
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: []byte("no wasm")}); service.KindOf(
		err) != service.KindBadModule {
		t.Errorf("no module at all: %v", err)
	}
	now, err := h.Status("tally")
	if err != nil || now.Spec.Module != st.Spec.Module || now.State != service.StateRunning {
		t.Errorf("after failed deployments: %+v, %v", now, err)
	}
	if r := h.MustSend(add("k")); r.Version != 2 {
		t.Errorf("after failed deployments: %+v", r)
	}
}

// Many senders and a subscriber go on while the service is deployed again and again. Every command is carried
// out exactly once.
func TestDeployUnderLoad(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	version := func(n int) []byte {
		m := testguest.CounterManifest("tally")
		m.Version = fmt.Sprint(n)
		return testguest.CounterWith(m.AppendJSON(nil), nil)
	}
	h.MustDeploy("tally", version(0))
	sub, err := h.Subscribe(t.Context(), service.Selection{Service: "tally"})
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			key := service.Key(fmt.Sprint("k", w))
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				r, err := h.Send(context.Background(), add(key))
				if err != nil || int(r.Version) != i {
					t.Errorf("sender %d, command %d: %+v, %v", w, i, r, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	for n := range 5 {
		st, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: version(n + 1),
			Settings: service.Settings{Shards: n%3 + 1}})
		if err != nil || st.Manifest.Version != fmt.Sprint(n+1) || len(st.Shards) != n%3+1 {
			t.Errorf("deployment %d: %+v, %v", n, st, err)
		}
	}
	close(stop)
	all.Wait()
	next := service.Position(1)
	for int64(next) <= sent.Load() {
		events, err := sub.Next(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Position != next {
				t.Fatalf("position %d came where %d was due", e.Position, next)
			}
			next++
		}
	}
	st, err := h.Status("tally")
	if err != nil || int64(st.Head) != sent.Load() || int64(st.Counters.Committed) != sent.Load() {
		t.Errorf("%d commands sent, status %+v, %v", sent.Load(), st, err)
	}
}

func TestEventsArePagedAndFiltered(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	for i := range 20 {
		h.MustSend(add(service.Key(fmt.Sprint("k", i%4))))
	}
	h.Restart() // empties the ring in memory
	var got []service.Position
	for at, done := service.Position(0), false; !done; {
		page, err := h.Events(t.Context(), service.Selection{Service: "tally", From: service.AfterPosition(at),
			Keys: []service.Key{"k1"}}, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			got = append(got, e.Position)
		}
		at, done = page.Next, page.AtHead
	}
	if fmt.Sprint(got) != "[2 6 10 14 18]" {
		t.Errorf("k1's positions are %v", got)
	}
	events, err := h.EntityEvents(t.Context(), "tally", "k2", 1, 3)
	if err != nil || len(events) != 3 || events[0].Version != 2 || events[2].Position != 15 {
		t.Errorf("k2's events: %v, %v", events, err)
	}
	if _, err := h.Subscribe(t.Context(), service.Selection{Service: "tally",
		From: service.AfterPosition(21)}); service.KindOf(err) != service.KindBadCursor {
		t.Errorf("a cursor of the future: %v", err)
	}
}

// After a failed append clients learn that the outcome is unknown, the host opens its journal again, and
// everything acknowledged is there.
func TestAFailedJournalIsOpenedAgain(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewMemory()
	h := hosttest.New(t, func(o *host.Options) {
		o.RecoveryWait = time.Millisecond
		o.OpenStorage = func() (journal.Storage, error) {
			disk = disk.CrashClone(0)
			return disk.Storage(), nil
		}
	})
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("k"))
	for h.Stats().Pending > 0 {
		runtime.Gosched() // until the index has caught up with the log
	}
	disk.FailAt(1) // so the next operation is the append, as the host chooses the id
	c := add("k")
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindUnknown {
		t.Fatalf("a command whose append fails: %v", err)
	}
	var r service.Reply
	c.ID = "again"
	for {
		var err error
		if r, err = h.Send(t.Context(), c); err == nil {
			break
		}
		if k := service.KindOf(err); k != service.KindUnavailable && k != service.KindNotFound {
			t.Fatalf("while the journal is opened again: %v", err)
		}
	}
	if r.Version != 2 || r.Position != 2 || r.Repeated {
		t.Errorf("a command after the failure: %+v", r)
	}
	if err := h.Ready(); err != nil {
		t.Errorf("the host is not ready: %v", err)
	}
	if n := counted(h)["tally/add"]; n < 3 {
		t.Errorf("%d commands are counted, of before and after", n)
	}
}

func TestASecondHostOnTheSameDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	_, err := host.Open(t.Context(), host.Options{Dir: h.Dir()})
	if service.KindOf(err) != service.KindUnavailable || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opening a directory in use: %v", err)
	}
}
