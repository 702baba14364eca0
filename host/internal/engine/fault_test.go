package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// published records what subscribers got.
type published struct {
	mu  sync.Mutex
	ids map[journal.CommandID]int
}

func (p *published) Publish(_ journal.Receipt, c *journal.Commit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids[c.Command.ID]++
}

// outcomes records what clients got.
type outcomes struct {
	t  *testing.T
	mu sync.Mutex
	of map[service.CommandID][]replied
	wg sync.WaitGroup
}

func (o *outcomes) submit(e *Engine, c service.Command) {
	o.wg.Add(1)
	answered := false
	done := func(r service.Reply, err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if answered {
			o.t.Errorf("%s was answered twice", c.ID)
			return
		}
		answered = true
		o.of[c.ID] = append(o.of[c.ID], replied{r, err})
		o.wg.Done()
	}
	if err := e.Submit(c, done); err != nil {
		done(service.Reply{}, err)
	}
}

// TestEveryOperationFailsOnce runs the same load again and again. The first, second, third …
// operation of the disk fails, and all later ones, until the load ends without a failure. After
// each run the disk loses power, is opened again, and its content is compared with what clients and
// subscribers were told.
func TestEveryOperationFailsOnce(t *testing.T) {
	for n := 1; ; n++ {
		if n > 2000 {
			t.Fatal("no end")
		}
		if failed := oneFault(t, n); !failed {
			t.Logf("the load takes %d operations of the disk", n-1)
			return
		}
	}
}

// load submits commands of all kinds: repeats, rejections, traps, faults.
func load(e *Engine, o *outcomes) {
	for i := range 12 {
		for _, key := range []string{"alice", "bob", "carol"} {
			id := func(what string) string { return fmt.Sprint(what, "-", key, "-", i) }
			o.submit(e, command("deposit", key, id("d"), "100"))
			o.submit(e, command("withdraw", key, id("w"), fmt.Sprint(30*i)))
			switch i % 4 {
			case 0:
				o.submit(e, command("deposit", key, id("d"), "100"))
			case 1:
				o.submit(e, command("trap", key, id("t"), "0"))
			case 2:
				o.submit(e, command("fault", key, id("f"), "0"))
			}
		}
		if i%3 == 0 {
			o.wg.Wait() // so that there are many groups
		}
	}
	o.wg.Wait()
}

func oneFault(t *testing.T, n int) (failed bool) {
	disk := journaltest.NewMemory()
	j, err := commitlog.Open(t.Context(), disk.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	disk.FailAt(n)
	told := &published{ids: map[journal.CommandID]int{}}
	o := &outcomes{t: t, of: map[service.CommandID][]replied{}}
	options, _ := bankOptions(t, j, 2)
	options.Publish = told
	options.Spec.Limits.ResidentEntities = 1
	options.Spec.Settings.SnapshotEvery = 3
	e, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range e.shards {
		s.maxStep = 1 + n%3
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	load(e, o)
	if err := e.Stop(t.Context()); err != nil {
		t.Fatalf("operation %d: %v", n, err)
	}
	failed = disk.Operations() >= n
	clone := disk.CrashClone(n % 3)
	j.Close(context.Background())
	if t.Failed() {
		t.Fatalf("operation %d", n)
	}

	found := verifyLog(t, clone)
	for id, replies := range o.of {
		for _, r := range replies {
			checkTold(t, n, id, r, found[journal.CommandID(id)])
		}
	}
	for id, times := range told.ids {
		if times != 1 || found[id] == nil {
			t.Errorf("operation %d: %s was published %d times and is in the log: %v", n, id, times, found[id] != nil)
		}
	}
	repeatAll(t, n, clone, o, found)
	if t.Failed() {
		t.Fatalf("operation %d", n)
	}
	return failed
}

// checkTold compares one answer with the log.
func checkTold(t *testing.T, n int, id service.CommandID, r replied, there *journal.Committed) {
	switch kind := service.KindOf(r.err); {
	case r.err == nil:
		if there == nil || string(there.Command.Reply) != string(r.reply.Data) || there.Version != r.reply.Version {
			t.Errorf("operation %d: %s was committed as %+v and the log has %+v", n, id, r.reply, there)
		}
	case kind == service.KindUnknown:
	case kind == service.KindUnavailable || kind == service.KindRejected || kind == service.KindTrap ||
		kind == service.KindFault:
		// A repeated command may be refused although the first was committed.
		if there != nil && id[0] != 'd' {
			t.Errorf("operation %d: %s is in the log, but the client was told %v", n, id, r.err)
		}
	default:
		t.Errorf("operation %d: %s: %v", n, id, r.err)
	}
}

// verifyLog verifies a disk and returns its commits by id.
func verifyLog(t *testing.T, disk *journaltest.Memory) map[journal.CommandID]*journal.Committed {
	// A journal completes the index and closes its disk, so it gets a copy.
	opened := disk.CrashClone(0)
	j, err := commitlog.Open(context.Background(), opened.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close(context.Background())
	found := map[journal.CommandID]*journal.Committed{}
	versions := map[string]journal.Version{}
	next := journal.Position(1)
	err = j.Commits(context.Background(), "bank", 0, func(c *journal.Committed) error {
		if found[c.Command.ID] != nil {
			t.Errorf("%s is there twice", c.Command.ID)
		}
		found[c.Command.ID] = c
		for _, e := range c.Events {
			versions[e.Key]++
			if e.Version != versions[e.Key] || e.Position != next {
				t.Errorf("%s: version %d at %d, want %d at %d", e.Key, e.Version, e.Position, versions[e.Key], next)
			}
			next++
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	report, err := verify.Run(context.Background(), opened.CrashClone(0).Storage(), verify.Options{})
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("verify: %v, %+v", err, report)
	}
	return found
}

// repeatAll sends every command that was committed or is unknown again, to a new engine. Afterwards each is
// in the log once, and the first answers still hold.
func repeatAll(t *testing.T, n int, disk *journaltest.Memory, o *outcomes,
	before map[journal.CommandID]*journal.Committed) {
	j, err := commitlog.Open(context.Background(), disk.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close(context.Background())
	options, _ := bankOptions(t, j, 3)
	e, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer e.Stop(context.Background())
	for _, key := range []string{"alice", "bob", "carol"} {
		for i := range 12 {
			id := fmt.Sprint("d-", key, "-", i)
			r, err := send(e, command("deposit", key, id, "100"))
			if err != nil {
				t.Errorf("operation %d: %s again: %v", n, id, err)
				continue
			}
			if there := before[journal.CommandID(id)]; r.Repeated != (there != nil) {
				t.Errorf("operation %d: %s again: %+v, the log had %+v", n, id, r, there)
			}
			for _, first := range o.of[service.CommandID(id)] {
				if first.err == nil && (r.Position != first.reply.Position ||
					string(r.Data) != string(first.reply.Data)) {
					t.Errorf("operation %d: %s again: %+v, at first %+v", n, id, r, first.reply)
				}
			}
		}
	}
}
