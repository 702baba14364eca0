package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// asked and told are an operation on one entity of the counter, whose state is the number of its events, and
// the client's final answer.
type asked struct {
	key      service.Key
	query    bool
	expected int64 // -1: none
}

type told struct {
	conflict bool
	count    int64
}

// counter is the model of an entity: one value, on which each operation acts at one moment between its first
// attempt and its answer.
var counter = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		of := map[service.Key][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(asked).key
			of[key] = append(of[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range of {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		at, in, out := state.(int64), input.(asked), output.(told)
		switch {
		case in.query:
			return out.count == at, at
		case out.conflict:
			return in.expected >= 0 && in.expected != at, at
		}
		return (in.expected < 0 || in.expected == at) && out.count == at+1, at + 1
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// The check itself must reject wrong histories.
func TestTheCounterIsChecked(t *testing.T) {
	t.Parallel()
	op := func(call, ret int64, in asked, out told) porcupine.Operation {
		in.key = "k"
		return porcupine.Operation{Call: call, Return: ret, Input: in, Output: out}
	}
	add, get := asked{expected: -1}, asked{query: true}
	for name, c := range map[string]struct {
		history []porcupine.Operation
		good    bool
	}{
		"in order": {[]porcupine.Operation{op(0, 1, add, told{count: 1}), op(2, 3, get, told{count: 1})}, true},
		"at once":  {[]porcupine.Operation{op(0, 9, add, told{count: 2}), op(1, 8, add, told{count: 1})}, true},
		"a stale read": {[]porcupine.Operation{op(0, 1, add, told{count: 1}), op(2, 3, get, told{count: 0})},
			false},
		"a lost command": {[]porcupine.Operation{op(0, 1, add, told{count: 1}), op(2, 3, add, told{count: 1})},
			false},
		"a false conflict": {[]porcupine.Operation{op(0, 1, asked{expected: 0}, told{conflict: true})}, false},
		"a dirty read": {[]porcupine.Operation{op(0, 1, get, told{count: 1}), op(2, 3, add, told{count: 1})},
			false},
	} {
		if porcupine.CheckOperations(counter, c.history) != c.good {
			t.Errorf("%s: linearizable is not %v", name, c.good)
		}
	}
}

// Many clients work on few entities while disk operations fail at random. With each failure the machine loses
// power, and the host opens its journal again. The clients' final answers must be linearizable for each
// counter.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	length := prove.Time(t, 2*time.Second, 3*time.Minute)
	seed := prove.Seed(t)
	var mu sync.Mutex // guards disk and rng
	rng := rand.New(rand.NewPCG(seed, 0))
	disk := journaltest.NewMemory()
	openings := 0
	opened := make(chan struct{}, 1)
	h := hosttest.New(t, func(o *host.Options) {
		o.RecoveryWait = time.Millisecond
		o.Settings.Shards = 2
		o.Limits.ResidentEntities = 2
		o.OpenStorage = func() (journal.Storage, error) {
			mu.Lock()
			defer mu.Unlock()
			openings++
			select {
			case opened <- struct{}{}:
			default:
			}
			disk = disk.CrashClone(rng.IntN(4))
			return disk.Storage(), nil
		}
	})
	h.MustDeploy("tally", testguest.Counter("tally"))
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var clients sync.WaitGroup
	c := &clerk{t: t, h: h, began: time.Now(), news: make(chan struct{})}
	for n := range 8 {
		own := rand.New(rand.NewPCG(seed, uint64(n+1)))
		clients.Go(func() { c.work(ctx, n, own) })
	}
	for ctx.Err() == nil {
		mu.Lock()
		disk.FailAt(1 + rng.IntN(120)) // and all later operations
		mu.Unlock()
		// Until the host has noticed. If only reads have failed, it need not notice.
		soon := time.NewTimer(20 * time.Millisecond)
		select {
		case <-opened:
		case <-soon.C:
		case <-ctx.Done():
		}
		soon.Stop()
		mu.Lock()
		disk.FailAt(0)
		mu.Unlock()
		c.some(ctx)
	}
	mu.Lock()
	disk.FailAt(0)
	mu.Unlock()
	clients.Wait()
	if t.Failed() {
		return
	}
	result, info := porcupine.CheckOperationsVerbose(counter, c.history, time.Minute)
	t.Logf("%d operations, %d openings of the journal, %d tries without an outcome: %v", len(c.history), openings,
		c.lost, result)
	if result != porcupine.Ok {
		file, err := os.CreateTemp("", "linear-*.html")
		if err == nil {
			err = errors.Join(porcupine.Visualize(counter, info, file), file.Close())
		}
		t.Errorf("what clients were told is %v of a counter; see %s, %v", result, file.Name(), err)
	}
	if openings < 3 {
		t.Errorf("only %d openings: nothing was tested", openings)
	}
}

// clerk acts as the clients, and records the history.
type clerk struct {
	t     *testing.T
	h     *hosttest.Host
	began time.Time

	mu      sync.Mutex // guards all below
	history []porcupine.Operation
	lost    int // attempts whose outcome was unknown
	news    chan struct{}
}

// some waits until clients have got answers again.
func (c *clerk) some(ctx context.Context) {
	for range 20 {
		select {
		case <-c.news:
		case <-ctx.Done():
		}
	}
}

func (c *clerk) work(ctx context.Context, client int, rng *rand.Rand) {
	last := map[service.Key]int64{}
	for i := 0; ctx.Err() == nil; i++ {
		in := asked{key: service.Key("k" + strconv.Itoa(rng.IntN(5))), expected: -1}
		switch rng.IntN(4) {
		case 0:
			in.query = true
		case 1:
			in.expected = last[in.key]
		}
		call := int64(time.Since(c.began))
		out, ok := c.ask(ctx, in, service.CommandID(fmt.Sprint("c", client, "-", i)))
		if !ok {
			continue // a query that ended with the test; a command always gets its answer
		}
		if !out.conflict {
			last[in.key] = out.count
		}
		c.mu.Lock()
		c.history = append(c.history, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call,
			Return: int64(time.Since(c.began))})
		c.mu.Unlock()
		select {
		case c.news <- struct{}{}:
		default:
		}
	}
}

// ask repeats a request until it gets a definite answer. A command keeps its id, and is repeated to the end,
// as it may have been carried out.
func (c *clerk) ask(ctx context.Context, in asked, id service.CommandID) (out told, ok bool) {
	for {
		var data []byte
		var err error
		if in.query {
			if ctx.Err() != nil {
				return told{}, false
			}
			var r service.QueryReply
			r, err = c.h.Query(c.t.Context(), service.Query{Service: "tally", Key: in.key, Type: "count"})
			data = r.Data
		} else {
			cmd := add(in.key)
			cmd.ID = id
			if in.expected >= 0 {
				v := service.Version(in.expected)
				cmd.Expected = &v
			}
			var r service.Reply
			r, err = c.h.Send(c.t.Context(), cmd)
			data = r.Data
		}
		switch service.KindOf(err) {
		case service.KindInternal:
			if err == nil {
				n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
				if err != nil {
					c.t.Errorf("%+v is answered %q", in, data)
				}
				return told{count: n}, err == nil
			}
			c.t.Errorf("%+v: %v", in, err)
			return told{}, false
		case service.KindVersionConflict:
			return told{conflict: true}, true
		case service.KindUnknown:
			c.mu.Lock()
			c.lost++
			c.mu.Unlock()
		case service.KindUnavailable, service.KindOverloaded, service.KindNotFound:
			pause := time.NewTimer(time.Millisecond) // while the host opens its journal
			select {
			case <-pause.C:
			case <-c.t.Context().Done():
			}
		default:
			c.t.Errorf("%+v: %v", in, err)
			return told{}, false
		}
		if c.t.Context().Err() != nil {
			return told{}, false
		}
	}
}
