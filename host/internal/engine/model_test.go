package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// observation is what a client saw of an entity at a version.
type observation struct {
	key     string
	version service.Version
	balance string
	what    string
}

// client sends random requests, one at a time, and keeps what it saw.
type client struct {
	t        *testing.T
	random   *rand.Rand
	number   int
	seen     []observation
	total    int64 // sum of what it moved: committed deposits minus withdrawals
	commits  int
	versions map[string]service.Version // the highest it has seen
}

// observe checks that nothing the client sees is older than what it saw before.
func (c *client) observe(o observation) {
	if o.version < c.versions[o.key] {
		c.t.Errorf("%s: %s is at version %d, this client has seen %d", o.what, o.key, o.version, c.versions[o.key])
	}
	c.versions[o.key] = o.version
	c.seen = append(c.seen, o)
}

func (c *client) step(engine func() *Engine, i int) {
	key := fmt.Sprint("k", c.random.IntN(12))
	amount := int64(1 + c.random.IntN(100))
	id := fmt.Sprintf("c%d-%d", c.number, i)
	typ := "deposit"
	switch n := c.random.IntN(100); {
	case n < 25:
		r, err := ask(engine(), balance(key))
		if err == nil {
			c.observe(observation{key, r.Version, string(r.Data), "query"})
		} else {
			c.tolerate(err)
		}
		return
	case n < 55:
		typ, amount = "withdraw", amount*2
	case n < 58:
		typ = "trap"
	case n < 61:
		typ = "fault"
	}
	cmd := command(typ, key, id, strconv.FormatInt(amount, 10))
	if c.random.IntN(10) == 0 {
		v := c.versions[key]
		cmd.Expected = &v
	}
	anonymous := c.random.IntN(5) == 0
	if anonymous {
		cmd.ID = ""
	}
	r, err := persist(engine, cmd)
	if err != nil {
		c.tolerate(err)
		return
	}
	if typ == "withdraw" {
		amount = -amount
	}
	c.total += amount
	c.commits++
	c.observe(observation{key, r.Version, string(r.Data), id})
	if !anonymous && c.random.IntN(4) == 0 {
		again, err := send(engine(), cmd)
		if k := service.KindOf(err); err != nil && (k == service.KindUnavailable || k == service.KindOverloaded) {
			return
		}
		if err != nil || !again.Repeated || again.Version != r.Version || again.Position != r.Position ||
			string(again.Data) != string(r.Data) {
			c.t.Errorf("%s again: %+v, %v; at first %+v", id, again, err, r)
		}
	}
}

// persist sends a command until it is accepted: the engine may be about to be replaced, or its mailbox full.
func persist(engine func() *Engine, c service.Command) (service.Reply, error) {
	for {
		r, err := send(engine(), c)
		if err == nil || service.KindOf(err) != service.KindUnavailable &&
			service.KindOf(err) != service.KindOverloaded {
			return r, err
		}
		runtime.Gosched()
	}
}

func (c *client) tolerate(err error) {
	switch service.KindOf(err) {
	case service.KindRejected, service.KindTrap, service.KindFault, service.KindVersionConflict,
		service.KindOverloaded, service.KindUnavailable:
	default:
		c.t.Errorf("unexpected: %v", err)
	}
}

// TestRandomLoad sends random commands from many clients, among them traps, faults, repeats and expected
// versions. Meanwhile entities are evicted and get snapshots, and engines are replaced, also by builds with
// another state schema. Afterwards every state that a client saw must be one that the log has passed through,
// and the balances must be the deposits minus the withdrawals.
func TestRandomLoad(t *testing.T) {
	seed := prove.Seed(t)
	disk := journaltest.NewMemory()
	j, err := commitlog.Open(t.Context(), disk.Storage(), commitlog.Options{MaxPendingCommits: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close(context.Background()) })
	told := &published{ids: map[journal.CommandID]int{}}
	random := rand.New(rand.NewPCG(seed, 0))
	every := 1 // for the first engine, so that each run has snapshots
	newEngine := func() *Engine {
		o, _ := bankOptions(t, j, 1+random.IntN(3))
		o.Publish = told
		o.Spec.Limits.ResidentEntities = 1 + random.IntN(5)
		o.Spec.Limits.MailboxCommands = 4
		o.Spec.Settings.SnapshotEvery = every
		every = []int{-1, 1, 2, 5, 1000}[random.IntN(5)]
		o.withSchema(t, uint32(random.IntN(2)))
		e, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range e.shards { // most hydrations take several steps
			s.maxStep, s.keepAfter = 1+random.IntN(8), time.Duration(random.IntN(2))*keepAfter
		}
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return e
	}
	var current atomic.Pointer[Engine]
	current.Store(newEngine())
	clients := make([]*client, 6)
	var running sync.WaitGroup
	var steps atomic.Int64
	swap := make(chan struct{}, 8)
	for i := range clients {
		c := &client{t: t, number: i, random: rand.New(rand.NewPCG(seed, uint64(i)+1)),
			versions: map[string]service.Version{}}
		clients[i] = c
		running.Go(func() {
			for i := range 250 {
				c.step(current.Load, i)
				if steps.Add(1)%300 == 0 {
					swap <- struct{}{}
				}
			}
		})
	}
	go func() { running.Wait(); close(swap) }()
	for range swap {
		old := current.Load()
		if err := old.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		current.Store(newEngine())
	}
	if err := current.Load().Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if j.Stats().Snapshots == 0 {
		t.Error("no snapshot was taken")
	}
	checkHistory(t, disk, clients, told)
}

func checkHistory(t *testing.T, disk *journaltest.Memory, clients []*client, told *published) {
	found := verifyLog(t, disk.CrashClone(1))
	type state struct {
		key     string
		version service.Version
	}
	states := map[state]string{}
	balances := map[string]int64{}
	byPosition := make([]*journal.Event, 0)
	for _, c := range found {
		for i := range c.Events {
			byPosition = append(byPosition, &c.Events[i])
		}
		if told.ids[c.Command.ID] != 1 {
			t.Errorf("%s was published %d times", c.Command.ID, told.ids[c.Command.ID])
		}
	}
	ordered := make([]*journal.Event, len(byPosition)+1)
	for _, e := range byPosition {
		ordered[e.Position] = e
	}
	var sum int64
	for _, e := range ordered[1:] {
		n, _ := strconv.ParseInt(string(e.Data), 10, 64)
		if e.Type == "withdrawn" {
			n = -n
		}
		sum += n
		balances[e.Key] += n
		if balances[e.Key] < 0 {
			t.Errorf("%s is overdrawn at version %d", e.Key, e.Version)
		}
		states[state{e.Key, e.Version}] = strconv.FormatInt(balances[e.Key], 10)
	}
	var total int64
	commits := 0
	for _, c := range clients {
		total += c.total
		commits += c.commits
		for _, o := range c.seen {
			want, ok := states[state{o.key, o.version}]
			if o.version == 0 {
				want, ok = "0", true
			}
			if !ok || want != o.balance {
				t.Errorf("%s saw %s of %s at version %d; the log says %q", o.what, o.balance, o.key, o.version, want)
			}
		}
	}
	if sum != total || commits != len(found) {
		t.Errorf("the log has %d in %d commits, the clients moved %d in %d", sum, len(found), total, commits)
	}
	t.Logf("%d commits, %d events", commits, len(byPosition))
}
