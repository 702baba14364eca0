package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

const (
	accounts     = 40 // few, so that commands compete for the same entities
	httpClients  = 12
	wsClients    = 12
	roundsPerDir = 10 // few, because each round checks the whole log of its directory
)

// TestKillNine checks the whole promise of durability; see the package's comment.
func TestKillNine(t *testing.T) {
	raced.Skip(t, "it runs other processes only")
	rounds, seed := prove.Rounds(t, 3, 50), prove.Seed(t)
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var sum totals
	for first := 0; first < rounds; first += roundsPerDir {
		h := &house{bin: bin, dir: filepath.Join(t.TempDir(), "data"), ledger: newLedger(),
			rng: rand.New(rand.NewPCG(seed, uint64(first)))}
		if err := os.MkdirAll(h.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for n := first; n < min(first+roundsPerDir, rounds) && !t.Failed(); n++ {
			h.round(t, n)
		}
		sum.add(h)
	}
	t.Logf("%d rounds: %v", rounds, sum)
}

// house is one directory that is used for several rounds.
type house struct {
	bin     binaries
	dir     string
	ledger  *ledger
	rng     *rand.Rand // for the choices of the rounds; each client has its own
	readers []*reader
	log     []fact
	restart []time.Duration
	early   int // kills while starting
	deploys int // rounds with a deployment under way
}

// plan holds the random choices of a round.
type plan struct {
	killAfter  time.Duration   // of load
	deployAt   time.Duration   // when a new module replaces the running one; 0: not in this round
	killsAtRun []time.Duration // kills during the restart
}

func (h *house) plan() plan {
	p := plan{killAfter: 20*time.Millisecond + time.Duration(h.rng.Int64N(int64(900*time.Millisecond)))}
	if h.rng.IntN(4) == 0 {
		p.deployAt = time.Duration(h.rng.Int64N(int64(p.killAfter))) + 1
	}
	for h.rng.IntN(4) == 0 && len(p.killsAtRun) < 3 {
		p.killsAtRun = append(p.killsAtRun, time.Millisecond+time.Duration(h.rng.Int64N(int64(250*time.Millisecond))))
	}
	return p
}

func (h *house) round(t *testing.T, n int) {
	p := h.plan()
	c := start(t, h.bin.bulkhead, h.dir, 0)
	if n%roundsPerDir == 0 {
		deploy(t, c, h.bin.bank)
		h.readers = []*reader{{name: "reader by WebSocket", socket: true}, {name: "reader by server-sent events"}}
	}
	h.load(t, c, n, p)

	// The host must come back on the same directory, whatever it was doing when it was killed, also
	// if it is killed again while it starts.
	for _, after := range p.killsAtRun {
		h.early++
		if early := start(t, h.bin.bulkhead, h.dir, after); early != nil {
			early.Kill()
		}
	}
	begin := time.Now()
	c = start(t, h.bin.bulkhead, h.dir, 0)
	h.restart = append(h.restart, time.Since(begin))
	h.settle(t, c)
	h.compare(t, c, n)
	c.Stop(t)
	if err := hosttest.VerifyJournal(h.bin.bulkhead, h.dir); err != nil {
		t.Errorf("round %d: %v", n, err)
	}
}

// load sends commands until the kill. When it returns, all clients and readers have ended.
func (h *house) load(t *testing.T, c *child, n int, p plan) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wait sync.WaitGroup
	for _, r := range h.readers {
		wait.Go(func() { r.follow(ctx, c) })
	}
	for i := range httpClients + wsClients {
		name := fmt.Sprintf("r%d-c%d", n, i)
		rng := rand.New(rand.NewPCG(h.rng.Uint64(), uint64(i)))
		wait.Go(func() { h.client(ctx, t, c, name, i < httpClients, rng) })
	}
	if p.deployAt > 0 {
		h.deploys++
		module := [][]byte{h.bin.bank, h.bin.bankToo}[n%2]
		wait.Go(func() {
			if wait := time.NewTimer(p.deployAt); !after(ctx, wait) {
				return
			}
			_ = tryDeploy(ctx, c, module) // the kill may interrupt it
		})
	}
	after(ctx, time.NewTimer(p.killAfter))
	c.Kill()
	cancel()
	wait.Wait()
}

// after waits for a timer; false if ctx ended first.
func after(ctx context.Context, timer *time.Timer) bool {
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// client sends one command after the other until the host is gone.
func (h *house) client(ctx context.Context, t *testing.T, c *child, name string, http bool, rng *rand.Rand) {
	s, hangUp, err := dial(ctx, c, http)
	if err != nil {
		return // killed before the connection was made
	}
	defer hangUp()
	for i := 0; ctx.Err() == nil; i++ {
		cmd := service.Command{
			Service: "bank", Key: service.Key(fmt.Sprintf("account-%d", rng.IntN(accounts))),
			ID: service.CommandID(fmt.Sprintf("%s-%d", name, i)),
		}
		switch k := rng.IntN(10); {
		case k == 0:
			cmd.Type, cmd.Data = "open", []byte(`{"owner":"Somebody"}`)
		case k < 6:
			cmd.Type, cmd.Data = "deposit", fmt.Appendf(nil, `{"amount":%d}`, 1+rng.IntN(100))
		default:
			cmd.Type, cmd.Data = "withdraw", fmt.Appendf(nil, `{"amount":%d}`, 1+rng.IntN(100))
		}
		r := h.ledger.sent(cmd)
		reply, err := s.Send(ctx, cmd)
		if err := h.ledger.answered(r, reply, err); err != nil {
			t.Error(err)
			return
		}
		if service.KindOf(err) == service.KindUnavailable {
			after(ctx, time.NewTimer(5*time.Millisecond)) // it was not accepted, and the host may be gone
		}
		select {
		case <-c.Exited:
			return
		default:
		}
	}
}

// settle sends every command again whose outcome its client does not know, and the most recently
// acknowledged ones, too.
func (h *house) settle(t *testing.T, c *child) {
	t.Helper()
	s, hangUp, err := dial(t.Context(), c, false)
	if err != nil {
		t.Fatalf("after the restart: %v", err)
	}
	defer hangUp()
	for _, r := range slices.Concat(h.ledger.open(), h.ledger.lastAcknowledged(20)) {
		reply, err := s.Send(t.Context(), r.command)
		if err := h.ledger.answered(r, reply, err); err != nil {
			t.Error(err)
		}
	}
}

// compare compares the log, the readers and the balances with what the clients were told.
func (h *house) compare(t *testing.T, c *child, n int) {
	t.Helper()
	log, err := readLog(t.Context(), c)
	if err != nil {
		t.Fatalf("round %d: reading the log: %v", n, err)
	}
	if len(log) < len(h.log) || !slices.Equal(log[:len(h.log)], h.log) {
		t.Errorf("round %d: the log does not begin with the log of the last round", n)
	}
	h.log = log
	for _, v := range h.ledger.check(log, true) {
		t.Errorf("round %d: %s", n, v)
	}
	for _, r := range h.readers {
		if err := r.catchUp(t.Context(), c, service.Position(len(log))); err != nil {
			t.Errorf("round %d: %s: %v", n, r.name, err)
		} else if !slices.Equal(r.seen, log[:len(r.seen)]) || len(r.seen) != len(log) {
			t.Errorf("round %d: %s has seen %d events, not the %d of the log in their order: %s", n, r.name,
				len(r.seen), len(log), firstDifference(r.seen, log))
		}
	}
	if err := balances(t.Context(), c, log); err != nil {
		t.Errorf("round %d: %v", n, err)
	}
}

func firstDifference(seen, log []fact) string {
	for i := range min(len(seen), len(log)) {
		if seen[i] != log[i] {
			return fmt.Sprintf("at %d it saw %+v, the log has %+v", i, seen[i], log[i])
		}
	}
	return "one is a prefix of the other"
}

// totals are the sums that the test prints.
type totals struct {
	told           map[told]int
	events         int
	early, deploys int
	restarts       []time.Duration
}

func (s *totals) add(h *house) {
	if s.told == nil {
		s.told = map[told]int{}
	}
	for k, n := range h.ledger.count() {
		s.told[k] += n
	}
	s.events += len(h.log)
	s.early += h.early
	s.deploys += h.deploys
	s.restarts = append(s.restarts, h.restart...)
}

func (s totals) String() string {
	slices.Sort(s.restarts)
	middle := time.Duration(0)
	if len(s.restarts) > 0 {
		middle = s.restarts[len(s.restarts)/2]
	}
	return fmt.Sprintf("%d commands acknowledged, %d rejected, %d not taken; %d events; %d kills while starting, %d "+
		"deployments under way; median restart %s",
		s.told[toldYes], s.told[toldNo], s.told[toldNotTaken], s.events, s.early, s.deploys,
		middle.Round(time.Millisecond))
}
