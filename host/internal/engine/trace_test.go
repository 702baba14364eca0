package engine

import (
	"context"
	"errors"
	"fmt"
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

// tracer records the order of effects. It sits between an engine, its guest, its log, its
// subscribers and its clients. Each sync of the log waits for the scenario.
type tracer struct {
	t      *testing.T
	engine *Engine
	guest  *bankGuest
	disk   *journaltest.Memory
	log    *commitlog.Journal
	gate   chan bool // true lets a sync succeed

	mu    sync.Mutex
	lines strings.Builder
}

func (r *tracer) record(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.lines, format+"\n", args...)
}

func (r *tracer) Append(ctx context.Context, c *journal.Commit, done func(journal.Receipt, error)) error {
	err := r.log.Append(ctx, c, done)
	if err != nil {
		r.record("append %s refused: %s", c.Command.ID, journal.KindOf(err))
	} else {
		r.record("append %s v%d+%d", c.Command.ID, c.Expected, len(c.Events))
	}
	return err
}

func (r *tracer) Accepts(log journal.LogName) error { return r.log.Accepts(log) }

func (r *tracer) Settle(log journal.LogName, key string, done func(journal.Receipt, error)) {
	r.record("settle %s", key)
	r.log.Settle(log, key, done)
}

func (r *tracer) Answer(ctx context.Context, log journal.LogName, id journal.CommandID,
	done func(*journal.Committed, journal.Receipt, error)) (bool, error) {
	found, err := r.log.Answer(ctx, log, id, done)
	if found {
		r.record("known %s", id)
	}
	return found, err
}

func (r *tracer) Load(ctx context.Context, log journal.LogName, key string, after journal.Version,
	yield func(*journal.Event) error) (journal.Version, error) {
	return r.log.Load(ctx, log, key, after, yield)
}

func (r *tracer) LogBytes(log journal.LogName) (int64, bool) { return r.log.LogBytes(log) }

func (r *tracer) PutSnapshot(ctx context.Context, log journal.LogName, key string, s journal.Snapshot) bool {
	kept := r.log.PutSnapshot(ctx, log, key, s)
	r.record("put snapshot %s v%d: %v", key, s.Version, kept)
	return kept
}

func (r *tracer) Snapshot(ctx context.Context, log journal.LogName, key string) (journal.Snapshot, bool, error) {
	return r.log.Snapshot(ctx, log, key)
}

func (r *tracer) Trimmed(ctx context.Context, log journal.LogName, key string) (journal.Trimmed, bool, error) {
	return r.log.Trimmed(ctx, log, key)
}

func (r *tracer) Publish(receipt journal.Receipt, c *journal.Commit) {
	r.record("publish %s %d-%d", c.Command.ID, receipt.First(), receipt.Last())
}

// submit submits a command and waits until nothing moves.
func (r *tracer) submit(c service.Command) {
	r.record("> %s %s %s (%s)", c.Type, c.Key, c.Data, c.ID)
	err := r.engine.Submit(c, func(reply service.Reply, err error) {
		switch {
		case err != nil:
			r.record("reply %s: %s", c.ID, service.KindOf(err))
		case reply.Repeated:
			r.record("reply %s: repeated %s v%d position %d", c.ID, reply.Data, reply.Version, reply.Position)
		default:
			r.record("reply %s: committed %s v%d position %d", c.ID, reply.Data, reply.Version, reply.Position)
		}
	})
	if err != nil {
		r.record("refused %s: %s", c.ID, service.KindOf(err))
	}
	synctest.Wait()
}

func (r *tracer) query(q service.Query) {
	r.record("> %s? %s", q.Type, q.Key)
	if err := r.engine.Query(q, func(reply service.QueryReply, err error) {
		if err != nil {
			r.record("answer: %s", service.KindOf(err))
			return
		}
		r.record("answer: %s v%d", reply.Data, reply.Version)
	}); err != nil {
		r.record("refused: %s", service.KindOf(err))
	}
	synctest.Wait()
}

// sync lets one sync of the disk happen.
func (r *tracer) sync() {
	r.record("> sync")
	before := r.log.Stats().Snapshots
	r.gate <- true
	synctest.Wait()
	if n := r.log.Stats().Snapshots - before; n > 0 {
		r.record("stored %d snapshots", n)
	}
}

// failSync makes the next sync fail, and the disk work again after it.
func (r *tracer) failSync() {
	r.record("> sync fails")
	r.disk.FailAt(1)
	r.gate <- false
	synctest.Wait()
	r.disk.FailAt(0)
}

// fill makes the disk full, or gives it room, and lets the journal notice.
func (r *tracer) fill(full bool) {
	r.record("> the disk is full: %v", full)
	r.disk.Fill(full)
	time.Sleep(time.Second)
}

var traces = map[string]func(r *tracer){
	"commit": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.sync()
	},
	"speculation": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100")) // is written while
		r.submit(command("withdraw", "alice", "c2", "30")) // these two gather
		r.submit(command("withdraw", "alice", "c3", "70"))
		r.sync()
		r.sync()
	},
	"no-events": func(r *tracer) {
		r.submit(command("touch", "alice", "c1", "0"))
		r.sync()
		r.submit(command("deposit", "alice", "c2", "5"))
		r.sync()
	},
	"rejection-rests-on-pending": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("withdraw", "alice", "c2", "500"))
		r.submit(command("withdraw", "bob", "c3", "1")) // bob's state is on disk
		r.sync()
	},
	"conflict-rests-on-pending": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		c := command("deposit", "alice", "c2", "100")
		c.Expected = new(service.Version(0))
		r.submit(c)
		c = command("deposit", "alice", "c3", "100")
		c.Expected = new(service.Version(1))
		r.submit(c)
		r.sync()
		r.sync()
	},
	"query-rests-on-pending": func(r *tracer) {
		r.query(balance("alice")) // she has no events yet
		r.submit(command("deposit", "alice", "c1", "100"))
		r.query(balance("alice"))
		r.submit(command("deposit", "alice", "c2", "11"))
		r.sync()
		r.sync()
	},
	"failed-append": func(r *tracer) {
		r.submit(command("deposit", "alice", "c0", "1"))
		r.sync()
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("withdraw", "alice", "c2", "50")) // depends on c1
		r.submit(command("withdraw", "alice", "c3", "52")) // is refused because of c2
		r.query(balance("alice"))
		r.submit(command("deposit", "bob", "c4", "1")) // comes after c1 in the log
		r.submit(command("deposit", "alice", "c1", "100"))
		r.failSync()
		r.query(balance("alice")) // the state on disk, from a new guest
		r.submit(command("deposit", "alice", "c1", "100"))
	},
	"full": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.fill(true)
		r.submit(command("deposit", "alice", "c2", "1")) // no guest does useless work
		r.sync()                                         // what was accepted is written
		r.submit(command("deposit", "alice", "c1", "100"))
		r.query(balance("alice"))
		r.query(balance("bob")) // is not resident
		r.fill(false)
		r.submit(command("deposit", "alice", "c2", "1"))
		r.sync()
	},
	"repeats": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("deposit", "alice", "c1", "100")) // joins the first
		r.submit(command("deposit", "alice", "c1", "999")) // is another one
		r.sync()
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("deposit", "alice", "c1", "999"))
		r.submit(command("deposit", "bob", "c1", "100"))
	},
	"trap": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("trap", "alice", "c2", "0"))
		r.submit(command("withdraw", "alice", "c3", "40")) // sees c1, which is still pending
		r.sync()
		r.sync()
	},
	"trap-in-query": func(r *tracer) {
		r.query(service.Query{Service: "bank", Key: "alice", Type: "break"})
		r.query(balance("alice"))
	},
	"trap-in-hydration": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "666"))
		r.submit(command("deposit", "bob", "c2", "1"))
		r.sync()
		r.sync()
		r.submit(command("trap", "bob", "c3", "0"))
		r.submit(command("deposit", "alice", "c4", "1"))
		r.query(balance("bob"))
	},
	"fault": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("deposit", "bob", "c2", "7"))
		r.submit(command("fault", "alice", "c3", "0"))
		r.submit(command("withdraw", "alice", "c4", "40"))
		r.submit(command("withdraw", "bob", "c5", "7")) // still resident
		r.sync()
		r.sync()
	},
	"eviction": func(r *tracer) { // two residents
		for _, key := range []string{"a", "b", "a", "c", "b", "a", "d", "e"} {
			r.query(balance(key))
		}
	},
	"drop": func(r *tracer) { // of an entity that no other one replaces
		r.submit(command("fault", "a", "c1", "0"))
		r.query(balance("b"))
		r.submit(command("fault", "a", "c2", "0"))
		r.submit(command("fault", "b", "c3", "0"))
		r.query(balance("c"))
	},
	"reset-fails": func(r *tracer) {
		r.guest.resetErr = errors.New("no memory")
		r.submit(command("trap", "alice", "c1", "0"))
		r.submit(command("deposit", "alice", "c2", "1"))
		r.record("> 20 ms later")
		time.Sleep(20 * time.Millisecond)
		r.submit(command("deposit", "alice", "c2", "1"))
		r.guest.resetErr = nil
		r.submit(command("deposit", "alice", "c2", "1"))
		r.record("> 30 ms later")
		time.Sleep(30 * time.Millisecond)
		r.submit(command("deposit", "alice", "c2", "1"))
		r.sync()
	},
	"snapshot-every": func(r *tracer) { // two events
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("deposit", "alice", "c2", "20"))
		r.submit(command("deposit", "alice", "c3", "3"))
		r.submit(command("trap", "alice", "c4", "0"))
		r.query(balance("alice")) // from a snapshot that is not on disk yet
		r.sync()
		r.sync()
		r.submit(command("trap", "alice", "c5", "0"))
		r.query(balance("alice"))
	},
	"snapshot-of-failed-append": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("deposit", "alice", "c2", "20"))
		r.failSync()
		r.query(balance("alice"))
	},
	"snapshot-refused": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("deposit", "alice", "c2", "20"))
		r.sync()
		r.sync()
		r.guest.decode = func([]byte) error { return service.Errorf(service.KindFault, "not mine") }
		r.submit(command("trap", "alice", "c3", "0"))
		r.query(balance("alice")) // from the events, with another snapshot immediately
		r.guest.decode = nil
		r.submit(command("trap", "alice", "c4", "0"))
		r.query(balance("alice"))
	},
	"snapshot-breaks-the-guest": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.submit(command("deposit", "alice", "c2", "20"))
		r.sync()
		r.sync()
		r.guest.decode = func([]byte) error { return service.Errorf(service.KindTrap, "unreachable") }
		for range 4 { // the last time it is not used for a while
			r.submit(command("trap", "alice", "c3", "0"))
			r.query(balance("alice"))
		}
	},
	"no-snapshots": func(r *tracer) { // the guest is asked again when the entity's version has doubled
		r.guest.encode = func(*account) error { return service.Errorf(service.KindFault, "what is a snapshot") }
		for n := range 5 {
			r.submit(command("deposit", "alice", fmt.Sprint("c", 2*n), "1"))
			r.submit(command("deposit", "alice", fmt.Sprint("c", 2*n+1), "1"))
		}
	},
	"snapshot-traps": func(r *tracer) { // once
		r.guest.encode = func(*account) error { return service.Errorf(service.KindTrap, "unreachable") }
		for n := range 4 {
			r.submit(command("deposit", "alice", fmt.Sprint("c", n), "1"))
		}
		r.query(balance("alice"))
	},
	"deadline": func(r *tracer) {
		c := command("deposit", "alice", "c1", "100")
		c.Deadline = time.Now()
		r.submit(c)
		c.Deadline = c.Deadline.Add(time.Nanosecond)
		r.submit(c)
		r.sync()
	},
	"stop": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.record("> stop")
		stopped := make(chan struct{})
		go func() {
			if err := r.engine.Stop(context.Background()); err != nil {
				r.t.Error(err)
			}
			r.record("stopped")
			close(stopped)
		}()
		synctest.Wait()
		r.submit(command("deposit", "alice", "c2", "100"))
		r.sync()
		<-stopped
	},
	"stop-without-patience": func(r *tracer) {
		r.submit(command("deposit", "alice", "c1", "100"))
		r.record("> stop")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.engine.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			r.t.Errorf("stop: %v", err)
		}
		r.record("stopped without patience")
		r.sync()
	},
}

// TestTraces compares the order of effects with the golden traces. -update rewrites them; a changed trace is
// a changed guarantee.
func TestTraces(t *testing.T) {
	for name, scenario := range traces {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &tracer{t: t, disk: journaltest.NewMemory(), gate: make(chan bool)}
				r.disk.OnAppend(func([]journal.Block) {
					if <-r.gate {
						r.record("sync")
					} else {
						r.record("sync fails")
					}
				})
				r.log = openJournal(t, r.disk.Storage())
				o, guests := bankOptions(t, r, 1)
				r.guest, o.Publish = guests[0], r
				r.guest.record = r.record
				o.Spec.Limits.ResidentEntities = 2
				if strings.Contains(name, "snapshot") {
					o.Spec.Settings.SnapshotEvery = 2
				}
				e, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				r.engine = e
				if err := e.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				scenario(r)
				golden(t, "trace/"+name+".txt", r.lines.String())
				close(r.gate)
				e.Stop(context.Background()) // without patience, it was stopped before
			})
		})
	}
}
