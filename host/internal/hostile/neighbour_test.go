package hostile

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// neighbour is the well-behaved service.
const neighbour = service.Name("neighbour")

// The neighbour's load: the time between two commands, and the maximum in progress.
const (
	pace     = 5 * time.Millisecond
	underWay = 256
)

// times are the latencies of the neighbour's commands.
type times struct {
	mu     sync.Mutex // guards both
	all    []time.Duration
	failed []string // at most a few
	errors int
}

func (l *times) add(took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, took)
	if err != nil {
		if l.errors++; len(l.failed) < 3 {
			l.failed = append(l.failed, err.Error())
		}
	}
}

func (l *times) quantile(q float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[min(int(float64(len(l.all))*q), len(l.all)-1)]
}

func (l *times) String() string {
	return fmt.Sprintf("p50 %.2f, p99 %.2f, max %.2f ms of %d", ms(l.quantile(.5)), ms(l.quantile(.99)),
		ms(l.quantile(1)), len(l.all))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// measure sends the neighbour commands for a while, each when it is due, whatever the outcomes of earlier
// ones.
func measure(ctx context.Context, c *hosttest.Child, during time.Duration) *times {
	transport := &http.Transport{MaxIdleConnsPerHost: underWay}
	defer transport.CloseIdleConnections()
	to := http.Client{Transport: transport, Timeout: 10 * time.Second}
	var l times
	var wait sync.WaitGroup
	slots := make(chan struct{}, underWay)
	begin := time.Now()
	for due := begin; due.Sub(begin) < during && ctx.Err() == nil; due = due.Add(pace) {
		pause(ctx, time.Until(due)) // the pace of the load
		slots <- struct{}{}
		wait.Go(func() {
			err := post(ctx, &to, c, neighbour, "k", "commands/add")
			l.add(time.Since(due), err)
			<-slots
		})
	}
	wait.Wait()
	return &l
}

// post sends a command or query and reads the answer.
func post(ctx context.Context, to *http.Client, c *hosttest.Child, name service.Name, key, what string) error {
	return postData(ctx, to, c, name, key, what, `{}`)
}

func postData(ctx context.Context, to *http.Client, c *hosttest.Child, name service.Name, key, what,
	data string) error {
	url := fmt.Sprintf("http://%s/v1/services/%s/entities/%s/%s", c.Address, name, key, what)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(what, "commands/") {
		// So the client sends it again on its own if its connection was closed to make room.
		req.Header.Set("Idempotency-Key", rand.Text())
	}
	resp, err := to.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// startHost starts a host with the neighbour on it.
func startHost(t testing.TB, o hosttest.ChildOptions) *hosttest.Child {
	t.Helper()
	program, err := hosttest.Program()
	if err != nil {
		t.Fatal(err)
	}
	o.Program = program
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Args = append(o.Args, "--log-level", "error")
	c := hosttest.StartChild(t, o)
	deploy(t, c, neighbour, testguest.Counter(string(neighbour)))
	return c
}

func deploy(t testing.TB, c *hosttest.Child, name service.Name, module []byte) {
	t.Helper()
	if err := tryDeploy(t.Context(), c, name, module); err != nil {
		t.Fatalf("deploying %s: %v\n%s", name, err, c.Log)
	}
}

func tryDeploy(ctx context.Context, c *hosttest.Child, name service.Name, module []byte) error {
	cl, err := c.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = cl.Deploy(ctx, service.Deployment{Service: name, Module: module, Limits: service.Limits{
		CompileBytes: 8 << 30, CompileTime: 10 * time.Minute, // of 200,000 instructions in one piece
	}})
	return err
}

// attack is one kind of hostility. start begins it, after its preparation, and returns a function that ends
// it and waits for the end.
type attack struct {
	name  string
	setUp func(t testing.TB, c *hosttest.Child)
	run   func(ctx context.Context, c *hosttest.Child)
	// prepare makes what run needs, in the attacker's process; it may be nil.
	prepare func()
}

// rounds is how long the neighbour is measured.
type rounds struct{ alone, beside time.Duration }

// result is what one attack did to the neighbour.
type result struct {
	name          string
	alone, beside *times
	repeated      int // for measurements without attack that were too noisy
}

// noisy is the latency without attack above which a run says more about the machine than about the host.
const noisy = 30 * time.Millisecond

// run measures the neighbour without and with one attack, on a new host.
func run(t testing.TB, a attack, r rounds) result {
	t.Helper()
	c := startHost(t, hosttest.ChildOptions{})
	defer c.Stop(t)
	if a.setUp != nil {
		a.setUp(t, c)
	}
	measure(t.Context(), c, r.alone/4) // connections, caches
	res := result{name: a.name}
	for res.alone = measure(t.Context(), c, r.alone); res.alone.quantile(1) > noisy &&
		res.repeated < 5; res.repeated++ {
		res.alone = measure(t.Context(), c, r.alone)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	begun := make(chan struct{})
	go func() { ended <- launch(ctx, c, begun, a.name) }()
	<-begun
	res.beside = measure(ctx, c, r.beside)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, l := range []*times{res.alone, res.beside} {
		if l.errors > 0 {
			t.Errorf("%s: %d of the neighbour's commands failed: %v", a.name, l.errors, l.failed)
		}
	}
	return res
}

// held reports whether the neighbour's latency stayed within its bound.
func (r result) held() bool {
	return r.beside.quantile(.5) <= 2*r.alone.quantile(.5) &&
		(r.beside.quantile(.99) <= 3*r.alone.quantile(.99) || r.beside.quantile(.99) <= 10*time.Millisecond) &&
		r.beside.quantile(1) <= 100*time.Millisecond
}

func (r result) String() string {
	verdict := "held"
	if !r.held() {
		verdict = "NOT HELD"
	}
	return fmt.Sprintf("%-14s alone %v; beside %v; %s", r.name, r.alone, r.beside, verdict)
}
