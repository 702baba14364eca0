package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// history appends n deposits of data to an entity, each of another command that took so
// much fuel.
func history(t *testing.T, j *commitlog.Journal, key string, from journal.Version, fuel uint64, data ...string) {
	t.Helper()
	for i, d := range data {
		c := journaltest.Commit("bank", key, from+journal.Version(i), fmt.Sprint(key, "-", int(from)+i), 0)
		c.Command.Fuel = fuel
		c.Events = []journal.NewEvent{{Type: "deposited", Data: []byte(d)}}
		if _, err := journaltest.Append(j, c); err != nil {
			t.Fatal(err)
		}
	}
}

func ones(n int) []string {
	return strings.Split(strings.TrimSuffix(strings.Repeat("1,", n), ","), ",")
}

// bankOn starts a bank of one shard, without snapshots, and returns its log lines.
func bankOn(t *testing.T, j *commitlog.Journal, change func(*Options)) (*Engine, *bankGuest, *lines) {
	t.Helper()
	o, guests := bankOptions(t, j, 1)
	o.Spec.Settings.SnapshotEvery = -1
	told := &lines{}
	o.Logger = slog.New(slog.NewTextHandler(told, nil))
	if change != nil {
		change(&o)
	}
	return start(t, o), guests[0], told
}

// asked is a query in progress.
func asked(t *testing.T, e *Engine, key string, deadline time.Time, done func(service.QueryReply, error)) {
	t.Helper()
	q := balance(key)
	q.Deadline = deadline
	if err := e.Query(q, done); err != nil {
		t.Fatal(err)
	}
}

// An id that is used again, long after, is that of another command, with its own fuel.
func TestAnIDThatIsUsedAgainTookFuelAgain(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	const commands, each = 5, 3
	at := journal.Version(0)
	for i := range commands {
		c := journaltest.Commit("bank", "nightly", at, "the same", 0)
		c.Command.Fuel, c.Command.Time = 7, journal.UnixNano(i+1)
		c.GeneratedID = true // so that it is not looked for
		for range each {
			c.Events = append(c.Events, journal.NewEvent{Type: "deposited", Data: []byte("1")})
		}
		if _, err := journaltest.Append(j, c); err != nil {
			t.Fatal(err)
		}
		if _, err := j.EventTypes(t.Context(), "bank"); err != nil { // when it is indexed
			t.Fatal(err)
		}
		at += each
	}
	e, g, _ := bankOn(t, j, nil)
	if _, err := ask(e, balance("nightly")); err != nil {
		t.Fatal(err)
	}
	if g.replayed != commands*each || g.granted != 7*commands {
		t.Errorf("%d events were replayed with %d fuel; their commands took %d", g.replayed, g.granted, 7*commands)
	}
}

// While an entity with a long history is hydrated, others of its shard are served, and its own tasks wait in
// order.
func TestALongHydrationGivesWay(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	const long = 5*stepEvents + 3
	history(t, j, "alice", 0, 7, ones(long)...)
	e, g, _ := bankOn(t, j, nil)
	begun, all := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g.onApply = func(*account, service.GuestEvent) {
		once.Do(func() { close(begun); <-all })
	}
	var mu sync.Mutex
	var order []string
	var pending sync.WaitGroup
	note := func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		order = append(order, what)
		pending.Done()
	}
	query := func(key string) {
		pending.Add(1)
		asked(t, e, key, time.Time{}, func(r service.QueryReply, err error) {
			note(fmt.Sprint(key, " ", string(r.Data)), err)
		})
	}
	deposit := func(key, id string) {
		pending.Add(1)
		if err := e.Submit(command("deposit", key, id, "1"), func(r service.Reply, err error) {
			note(fmt.Sprint(key, " ", string(r.Data)), err)
		}); err != nil {
			t.Fatal(err)
		}
	}
	query("alice")
	<-begun
	deposit("alice", "")
	deposit("alice", "x")
	for i := range 4 {
		query(fmt.Sprint("bob", i)) // not a deposit, whose answer waits for the disk
	}
	query("alice")
	close(all)
	pending.Wait()
	got := strings.Join(order, ", ")
	if want := fmt.Sprintf("bob0 0, bob1 0, bob2 0, bob3 0, alice %d, alice %d, alice %d, alice %d", long, long+1,
		long+2, long+2); got != want {
		t.Errorf("answered: %s; want %s", got, want)
	}
	if status, c := counted(t, e); c.Hydrated != 5 || c.Queries != 6 || g.replayed != long || g.granted != 7*long ||
		status[0].Queued != 0 || status[0].QueuedBytes != 0 {
		t.Errorf("%d hydrated, %d queries, %d events replayed with %d fuel, %+v", c.Hydrated, c.Queries, g.replayed,
			g.granted, status[0])
	}
}

// An entity is hydrated even if its replay takes longer than any client waits: each client is answered at its
// deadline, and the hydration goes on.
func TestAHydrationOutlivesItsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		const events = 3000
		history(t, j, "alice", 0, 7, ones(events)...)
		e, g, _ := bankOn(t, j, func(o *Options) { o.Spec.Settings.SnapshotEvery = 1000 })
		g.onApply = func(*account, service.GuestEvent) { time.Sleep(10 * time.Millisecond) }
		began := time.Now()
		for try := 1; ; try++ {
			done := make(chan error, 1)
			deadline := time.Now().Add(time.Second)
			q := balance("alice")
			q.Deadline = deadline
			q.Claim = new(service.Claim)
			if try == 3 {
				q.Claim = nil // the sender cannot take it back
			}
			if err := e.Query(q, func(r service.QueryReply, err error) {
				if err == nil && string(r.Data) != fmt.Sprint(events) {
					t.Errorf("alice has %s", r.Data)
				}
				done <- err
			}); err != nil {
				t.Fatal(err)
			}
			err := <-done
			if err == nil {
				break
			}
			wantKind(t, err, service.KindDeadline)
			if late := time.Since(deadline); late > time.Second {
				t.Fatalf("told %v after its deadline", late)
			}
			if try > 60 {
				t.Fatal("alice does not come back")
			}
		}
		if took := time.Since(began); took < 30*time.Second || g.replayed != events {
			t.Errorf("%d events were replayed in %v", g.replayed, took)
		}
		if _, c := counted(t, e); c.Resets != 0 || c.Hydrated != 1 || c.SnapshotsTaken == 0 {
			t.Errorf("%+v", c)
		}
	})
}

// A long hydration stores its state. When the sandbox is reset because of another entity, the hydration
// continues from there.
func TestAHydrationGoesOnAfterAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		const events = 3000
		history(t, j, "alice", 0, 7, ones(events)...)
		e, g, _ := bankOn(t, j, func(o *Options) { o.Spec.Settings.SnapshotEvery = 1000 })
		g.onApply = func(*account, service.GuestEvent) { time.Sleep(10 * time.Millisecond) }
		asked(t, e, "alice", time.Now().Add(time.Second), func(_ service.QueryReply, err error) {
			wantKind(t, err, service.KindDeadline)
		})
		time.Sleep(20 * time.Second)
		if _, err := send(e, command("trap", "bob", "", "0")); service.KindOf(err) != service.KindTrap {
			t.Fatal(err)
		}
		wantBalance(t, e, "alice", events)
		if _, c := counted(t, e); g.replayed > events+300 || g.replayed <= events || c.Resets != 1 ||
			c.SnapshotsUsed != 1 {
			t.Errorf("%d events were replayed, %+v", g.replayed, c)
		}
	})
}

// It also continues from there if an earlier snapshot was refused, which is not tried again.
func TestAHydrationWithARefusedSnapshotGoesOnAfterAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		const events, before = 3000, 11
		o, _ := bankOptions(t, j, 1)
		o.Spec.Settings.SnapshotEvery = 10
		o.withSchema(t, 4)
		old := start(t, o)
		deposits(t, old, "alice", before)
		wantSnapshots(t, old, 1, 0, 0)
		history(t, j, "alice", before, 7, ones(events-before)...)
		e, g, _ := bankOn(t, j, func(o *Options) { o.Spec.Settings.SnapshotEvery = 1000 })
		g.onApply = func(*account, service.GuestEvent) { time.Sleep(10 * time.Millisecond) }
		done := make(chan error, 1)
		asked(t, e, "alice", time.Time{}, func(_ service.QueryReply, err error) { done <- err })
		for range 2 {
			time.Sleep(10 * time.Second)
			if _, err := send(e, command("trap", "bob", "", "0")); service.KindOf(err) != service.KindTrap {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		wantBalance(t, e, "alice", events)
		if _, c := counted(t, e); g.replayed > events+600 || g.replayed <= events || c.Resets != 2 ||
			c.SnapshotsUsed != 1 || c.SnapshotsRefused != 1 {
			t.Errorf("%d events were replayed, %+v", g.replayed, c)
		}
	})
}

// An entity that cannot be hydrated costs one hydration and one line of the log, however often it
// is requested. Other entities are not affected. It is tried again after growing waits.
func TestABrokenEntityAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		history(t, j, "bob", 0, 7, ones(3)...)
		history(t, j, "alice", 0, 7, ones(20)...)
		history(t, j, "alice", 20, 7, "13")
		history(t, j, "alice", 21, 7, ones(500)...)
		e, g, told := bankOn(t, j, nil)
		g.unlucky = true
		var last *service.Error
		for i := range 10 {
			_, err := ask(e, balance("alice"))
			if !errors.As(err, &last) || last.Kind != service.KindFault || last.Code != "panic" ||
				last.RetryAfter <= 0 || last.RetryAfter > time.Second {
				t.Fatalf("%d: %+v", i, err)
			}
			for _, part := range []string{`"alice"`, `"deposited"`, "version 21,", "position 24", "13 is bad luck"} {
				if !strings.Contains(last.Message, part) {
					t.Errorf("%q does not name %s", last.Message, part)
				}
			}
			wantBalance(t, e, "bob", 3)
		}
		_, err := send(e, command("deposit", "alice", "", "1"))
		wantKind(t, err, service.KindFault)
		if _, c := counted(t, e); c.Resets != 0 || g.replayed != 3+21 || c.Hydrated != 1 {
			t.Errorf("%d events replayed, %+v", g.replayed, c)
		}
		if told.count("alice") != 1 || told.count("version=21") != 1 || told.count("position=24") != 1 ||
			told.count("event=deposited") != 1 {
			t.Errorf("told: %s", told)
		}
		f := e.Faults()
		if f.Count != 1 || len(f.Latest) != 1 {
			t.Fatalf("%+v", f)
		}
		if x := f.Latest[0]; x.Key != "alice" || x.Cannot != service.CannotHydrate || x.Version != 21 ||
			x.Event != "deposited" || x.Position != 24 || x.Failed != 1 || x.NextAttempt.IsZero() ||
			!strings.Contains(x.Problem, "13 is bad luck") {
			t.Errorf("%+v", x)
		}
		var waits []time.Duration
		for range 12 {
			time.Sleep(time.Until(e.Faults().Latest[0].NextAttempt))
			_, err := ask(e, balance("alice"))
			if !errors.As(err, &last) {
				t.Fatal(err)
			}
			waits = append(waits, last.RetryAfter)
		}
		if waits[1] < waits[0] || waits[3] < 2*waits[0] || waits[11] > retryBackoff.Max ||
			waits[11] < retryBackoff.Max*3/4 {
			t.Errorf("waits of %v", waits)
		}
		if told.count("alice") != 13 {
			t.Errorf("told %d times", told.count("alice"))
		}
		g.unlucky = false
		time.Sleep(retryBackoff.Max)
		r, err := ask(e, balance("alice"))
		if err != nil || r.Version != 521 {
			t.Errorf("%+v, %v", r, err)
		}
		if f := e.Faults(); !f.IsZero() || len(f.Latest) != 0 {
			t.Errorf("%+v", f)
		}
	})
}

// holed is a log in which the third event of an entity is damaged.
type holed struct {
	Log
	key   string
	reads int
}

func (h *holed) Load(ctx context.Context, log journal.LogName, key string, after journal.Version,
	yield func(*journal.Event) error) (journal.Version, error) {
	if key != h.key {
		return h.Log.Load(ctx, log, key, after, yield)
	}
	h.reads++
	damage := &journal.Error{Op: "load", Log: log, Kind: journal.KindCorrupt, Detail: "version 3 is damaged"}
	return h.Log.Load(ctx, log, key, after, func(e *journal.Event) error {
		if e.Version == 3 {
			return damage
		}
		return yield(e)
	})
}

// An entity with a damaged event is named, and its events are not read again and again.
func TestADamagedEntity(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	history(t, j, "alice", 0, 7, ones(5)...)
	log := &holed{Log: j, key: "alice"}
	e, _, _ := bankOn(t, j, func(o *Options) { o.Log = log })
	for range 5 {
		_, err := ask(e, balance("alice"))
		wantKind(t, err, service.KindDamaged)
		var own *service.Error
		if !errors.As(err, &own) || !strings.Contains(own.Message, "version 3 is damaged") || own.RetryAfter <= 0 {
			t.Errorf("%+v", own)
		}
	}
	if log.reads > 2 { // once to hydrate, and once to find the position
		t.Errorf("it was read %d times", log.reads)
	}
	f := e.Faults()
	if len(f.Latest) != 1 || f.Latest[0].Key != "alice" || f.Latest[0].Cannot != service.CannotHydrate {
		t.Errorf("%+v", f)
	}
	wantBalance(t, e, "bob", 0)
}

// After a trap it is unknown which of many events caused it. The next attempt finds out.
func TestAnEventThatBreaksTheSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		history(t, j, "alice", 0, 7, ones(20)...)
		history(t, j, "alice", 20, 7, "666")
		history(t, j, "alice", 21, 7, ones(5)...)
		e, g, _ := bankOn(t, j, nil)
		_, err := ask(e, balance("alice"))
		wantKind(t, err, service.KindTrap)
		if !strings.Contains(err.Error(), "up to version 21, at positions 1 to 21") {
			t.Error(err)
		}
		for range 3 {
			_, err = ask(e, balance("alice"))
			wantKind(t, err, service.KindTrap)
		}
		wantBalance(t, e, "bob", 0)
		if _, c := counted(t, e); c.Resets != 1 || g.replayed != 21 {
			t.Errorf("%d events replayed, %+v", g.replayed, c)
		}
		time.Sleep(retryBackoff.First)
		_, err = ask(e, balance("alice"))
		wantKind(t, err, service.KindTrap)
		if !strings.Contains(err.Error(), `event of type "deposited" at version 21, position 21`) {
			t.Error(err)
		}
		if x := e.Faults().Latest[0]; x.Version != 21 || x.Event != "deposited" || x.Position != 21 || x.Failed != 2 {
			t.Errorf("%+v", x)
		}
	})
}

// A repeated command gets its answer even if its entity cannot be hydrated.
func TestARepeatOfABrokenEntity(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	e, g, _ := bankOn(t, j, func(o *Options) { o.Spec.Limits.ResidentEntities = 1 })
	g.unlucky = true
	if _, err := send(e, command("deposit", "alice", "c1", "13")); err != nil {
		t.Fatal(err)
	}
	wantBalance(t, e, "bob", 0) // evicts her
	_, err := ask(e, balance("alice"))
	wantKind(t, err, service.KindFault)
	r, err := send(e, command("deposit", "alice", "c1", "13"))
	if err != nil || !r.Repeated {
		t.Errorf("%+v, %v", r, err)
	}
}

// The tasks that wait for a hydration take at most half of the mailbox, and refused tasks free their places.
// A stop carries the others out.
func TestWhatWaitsForAHydration(t *testing.T) {
	for _, patience := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			j := openJournal(t, journaltest.NewMemory().Storage())
			history(t, j, "alice", 0, 7, ones(3000)...)
			e, g, _ := bankOn(t, j, func(o *Options) { o.Spec.Limits.MailboxCommands = 8 })
			g.onApply = func(*account, service.GuestEvent) { time.Sleep(10 * time.Millisecond) }
			answers := make(chan error, 20)
			deposit := func(c service.Command) { // in the mailbox the other half is for others
				if err := e.Submit(c, func(_ service.Reply, err error) { answers <- err }); err != nil {
					answers <- err
				}
				time.Sleep(time.Second) // a step
			}
			claims := [4]service.Claim{}
			for i := range 4 {
				c := command("deposit", "alice", "", "1")
				c.Claim = &claims[i]
				deposit(c)
			}
			deposit(command("deposit", "alice", "", "1"))
			err := <-answers
			wantKind(t, err, service.KindOverloaded)
			if status, _ := e.Status(); status[0].Queued != 4 {
				t.Errorf("%d are queued", status[0].Queued)
			}
			wantBalance(t, e, "bob", 0)
			if !claims[1].Refuse() || !claims[2].Refuse() {
				t.Error("a waiting command cannot be taken back")
			}
			deposit(command("deposit", "alice", "", "1"))
			if len(answers) != 0 {
				t.Fatal(<-answers)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			want := service.KindInternal // of no error
			if !patience {
				ctx, cancel = context.WithTimeout(context.Background(), time.Second)
				want = service.KindUnavailable
			}
			defer cancel()
			if err := e.Stop(ctx); (err == nil) != patience {
				t.Errorf("stop: %v", err)
			}
			for range 3 {
				if err := <-answers; (err == nil) != patience || service.KindOf(err) != want {
					t.Errorf("got %v", err)
				}
			}
			if len(answers) != 0 {
				t.Error("more answers than commands")
			}
			if status, _ := e.Status(); status[0].Queued != 0 || status[0].QueuedBytes != 0 {
				t.Errorf("%+v", status[0])
			}
		})
	}
}

// There are many long hydrations at a time, with places for one entity or for some. All entities are
// hydrated.
func TestManyLongHydrations(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	const entities, events = 2 * maxHydrations, 2*stepEvents + 1
	for i := range entities {
		history(t, j, fmt.Sprint("a", i), 0, 7, ones(events)...)
	}
	for _, maxResident := range []int{1, 3, 100} {
		e, g, _ := bankOn(t, j, func(o *Options) { o.Spec.Limits.ResidentEntities = maxResident })
		var all sync.WaitGroup
		for i := range entities {
			all.Add(1)
			asked(t, e, fmt.Sprint("a", i), time.Time{}, func(r service.QueryReply, err error) {
				if err != nil || int(r.Version) != events {
					t.Errorf("%+v, %v", r, err)
				}
				all.Done()
			})
		}
		all.Wait()
		if status, c := counted(t, e); status[0].Resident > maxResident || c.Hydrated != entities ||
			g.replayed != entities*events {
			t.Errorf("%d resident, %d hydrated, %d replayed", status[0].Resident, c.Hydrated, g.replayed)
		}
	}
}
