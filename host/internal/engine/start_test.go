package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// A service with many shards makes a sandbox only when it is needed.
func TestShardsStartWhenFirstUsed(t *testing.T) {
	made := make(chan int, 1024)
	e, _, _ := startBank(t, 1, func(o *Options) {
		o.Spec.Settings.Shards = 1024
		o.NewGuest = func(_ context.Context, shard int) (Guest, error) {
			made <- shard
			return newBankGuest(t), nil
		}
	})
	if status, _ := e.Status(); len(made) > 0 || len(status) != 1024 || status[17].State != service.StateIdle {
		t.Fatalf("%d sandboxes of a service that does nothing, shard %+v", len(made), status[17])
	}
	for range 2 {
		if _, err := send(e, command("deposit", "alice", "", "1")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask(e, balance("bob")); err != nil {
		t.Fatal(err)
	}
	alice, bob := shardOf("alice", 1024), shardOf("bob", 1024)
	if len(made) != 2 || <-made != alice || <-made != bob {
		t.Errorf("not the shards of alice and bob were started")
	}
	status, _ := e.Status()
	running := 0
	for _, s := range status {
		if s.State == service.StateRunning {
			running++
		}
	}
	if running != 2 {
		t.Errorf("%d shards run", running)
	}
}

// gatedBank is a bank with one shard, whose sandbox is made when a result is sent.
func gatedBank(t *testing.T, change func(*Options)) (e *Engine, guest *bankGuest, result chan error) {
	result = make(chan error)
	e, guests, _ := startBank(t, 1, func(o *Options) {
		inner := o.NewGuest
		o.NewGuest = func(ctx context.Context, shard int) (Guest, error) {
			select {
			case err := <-result:
				if err != nil {
					return nil, err
				}
				return inner(ctx, shard)
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if change != nil {
			change(o)
		}
	})
	return e, guests[0], result
}

// Requests wait for a sandbox that starts: in the mailbox, up to its bounds, and no longer than their
// deadline or the engine's patience.
func TestRequestsWaitForASandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, result := gatedBank(t, func(o *Options) {
			o.Patience = time.Minute
			o.Spec.Limits.MailboxCommands = 4
		})
		var mu sync.Mutex // timers answer at the same instant
		answers := map[string]error{}
		note := func(id string, err error) {
			mu.Lock()
			defer mu.Unlock()
			answers[id] = err
		}
		so := func() map[string]error {
			mu.Lock()
			defer mu.Unlock()
			return maps.Clone(answers)
		}
		answered := func(id string) func(service.Reply, error) {
			return func(_ service.Reply, err error) { note(id, err) }
		}
		submit := func(id string, deadline time.Duration) error {
			c := command("deposit", "alice", id, "1")
			if deadline > 0 {
				c.Deadline = time.Now().Add(deadline)
			}
			return e.Submit(c, answered(id))
		}
		if err := submit("first", 0); err != nil { // which the shard takes
			t.Fatal(err)
		}
		synctest.Wait()
		for id, deadline := range map[string]time.Duration{"short": time.Second, "long": time.Hour,
			"hours": 100 * time.Hour} {
			if err := submit(id, deadline); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Query(balance("alice"), func(_ service.QueryReply, err error) { note("query", err) }); err != nil {
			t.Fatal(err)
		}
		err := submit("beyond", 0)
		wantKind(t, err, service.KindUnavailable)
		if retry := err.(*service.Error).RetryAfter; retry <= 0 {
			t.Errorf("beyond the mailbox: retry after %v", retry)
		}
		if status, _ := e.Status(); status[0].State != service.StateStarting || status[0].Queued != 4 {
			t.Errorf("status %+v", status[0])
		}
		if err := e.Starting("alice"); service.KindOf(err) != service.KindUnavailable {
			t.Errorf("while it starts: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(so()) != 1 {
			t.Errorf("after 2 s there are answers %v", so())
		}
		wantKind(t, so()["short"], service.KindUnavailable)
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, id := range []string{"first", "query", "long", "hours"} { // the engine's patience bounds them all
			wantKind(t, so()[id], service.KindUnavailable)
		}
		result <- nil
		synctest.Wait()
		mu.Lock()
		clear(answers)
		mu.Unlock()
		if err := e.Starting("alice"); err != nil {
			t.Errorf("when it runs: %v", err)
		}
		if err := submit("next", time.Hour); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err, ok := so()["next"]; !ok || err != nil || len(so()) != 1 {
			t.Errorf("after the start: %v", so())
		}
		if q, err := ask(e, balance("alice")); err != nil || q.Version != 1 {
			t.Errorf("%+v, %v: something was carried out that was refused", q, err)
		}
	})
}

// When the sandbox is there, the tasks whose deadlines have not passed are carried out, in order.
func TestWhatWaitedIsCarriedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, result := gatedBank(t, nil)
		var answers []string
		for i := range 5 {
			c := command("deposit", "alice", fmt.Sprint("c", i), "1")
			c.Claim = new(service.Claim)
			if err := e.Submit(c, func(r service.Reply, err error) {
				answers = append(answers, fmt.Sprint(r.CommandID, " ", r.Version, " ", err))
			}); err != nil {
				t.Fatal(err)
			}
			if i == 3 && !c.Claim.Refuse() { // its sender takes it back
				t.Error("a command that waits cannot be taken back")
			}
		}
		time.Sleep(30 * time.Second)
		result <- nil
		synctest.Wait()
		if want := []string{"c0 1 <nil>", "c1 2 <nil>", "c2 3 <nil>", "c4 4 <nil>"}; !slices.Equal(answers, want) {
			t.Errorf("got %v, want %v", answers, want)
		}
	})
}

// When a request is refused while it waits in a mailbox, its data is released at once, by whomever it was
// refused, and is no longer counted.
func TestARefusedRequestLeavesNothingInTheMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, result := gatedBank(t, nil)
		type data [1 << 16]byte
		submit := func(deadline time.Time, query bool) (*service.Claim, []weak.Pointer[data]) {
			body, metadata := new(data), new(data)
			c := command("deposit", "alice", "", "")
			c.Data, c.Metadata, c.Deadline, c.Claim = body[:], nil, deadline, new(service.Claim)
			all := []weak.Pointer[data]{weak.Make(body)}
			var err error
			if query {
				err = e.Query(service.Query{Service: "bank", Key: "alice", Type: "balance", Data: body[:],
					Deadline: deadline, Claim: c.Claim}, func(service.QueryReply, error) {})
			} else {
				c.Metadata, all = abi.Metadata(metadata[:0]).AppendPair("name", "value"),
					append(all, weak.Make(metadata))
				err = e.Submit(c, func(service.Reply, error) {})
			}
			if err != nil {
				t.Fatal(err)
			}
			return c.Claim, all
		}
		gone := func(what string, all []weak.Pointer[data]) {
			t.Helper()
			runtime.GC()
			runtime.GC()
			for _, p := range all {
				if p.Value() != nil {
					t.Errorf("%s: the data is still there", what)
				}
			}
		}
		for _, query := range []bool{false, true} {
			claim, all := submit(time.Time{}, query)
			if !claim.Refuse() {
				t.Error("a request that waits cannot be taken back")
			}
			gone("taken back by its sender", all)
			_, all = submit(time.Now().Add(time.Second), query)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			gone("at its deadline", all)
		}
		if n := e.shards[0].mail.queued.Load(); n == 0 {
			t.Error("nothing waits in the mailbox any more")
		}
		result <- nil
	})
}

// A sandbox that cannot be made is tried again with growing waits, which status and refusals show.
// Repeated ids are answered from the journal meanwhile.
func TestASandboxThatCannotBeMadeIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		o, _ := bankOptions(t, j, 1)
		before := start(t, o)
		if _, err := send(before, command("deposit", "alice", "known", "1")); err != nil {
			t.Fatal(err)
		}
		if err := before.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		o, _ = bankOptions(t, j, 1)
		works, tries := false, 0
		make := o.NewGuest
		o.NewGuest = func(ctx context.Context, shard int) (Guest, error) {
			if tries++; !works {
				return nil, service.Errorf(service.KindInternal, "no room for attempt %d", tries)
			}
			return make(ctx, shard)
		}
		o.Retry = lifecycle.Backoff{First: time.Second, Max: 8 * time.Second}
		e := start(t, o)
		var last time.Duration
		for n := 1; n <= 6; n++ {
			_, err := send(e, command("deposit", "alice", "", "1"))
			wantKind(t, err, service.KindUnavailable)
			retry := err.(*service.Error).RetryAfter
			bound := min(time.Second<<(n-1), 8*time.Second)
			if retry > bound || retry < bound*3/4 {
				t.Errorf("after %d failures: retry after %v, want about %v", n, retry, bound)
			}
			status, _ := e.Status()
			s := status[0]
			if s.State != service.StateFailed || s.Failed != n || !s.NextAttempt.Equal(time.Now().Add(retry)) ||
				s.Problem != fmt.Sprintf("bank: internal: no room for attempt %d", n) {
				t.Errorf("after %d failures: %+v", n, s)
			}
			_, err = send(e, command("deposit", "alice", "", "1"))
			wantKind(t, err, service.KindUnavailable)
			if tries != n {
				t.Errorf("it was tried %d times before the wait was over, want %d", tries, n)
			}
			if r, err := send(e, command("deposit", "alice", "known", "1")); err != nil || !r.Repeated {
				t.Errorf("a command that the journal knows: %+v, %v", r, err)
			}
			time.Sleep(retry)
			last = retry
		}
		works = true
		if r, err := send(e, command("deposit", "alice", "", "1")); err != nil || r.Version != 2 {
			t.Errorf("after %v: %+v, %v", last, r, err)
		}
		if status, _ := e.Status(); status[0].State != service.StateRunning ||
			status[0].Attempts != (service.Attempts{}) {
			t.Errorf("at last: %+v", status[0])
		}
	})
}

// An engine that must stop at once does not wait for a sandbox that starts.
func TestStopDoesNotWaitForStarts(t *testing.T) {
	e, _, _ := gatedBank(t, nil)
	done := make(chan error, 2)
	for range cap(done) {
		if err := e.Submit(command("deposit", "alice", "", "1"), func(_ service.Reply, err error) {
			done <- err
		}); err != nil {
			t.Fatal(err)
		}
	}
	e.CancelStarts()
	if err := e.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	for range cap(done) {
		wantKind(t, <-done, service.KindUnavailable)
	}
	// Nor does an engine whose starts were canceled before.
	o, _ := bankOptions(t, openJournal(t, journaltest.NewMemory().Storage()), 1)
	o.NewGuest = func(ctx context.Context, _ int) (Guest, error) {
		<-ctx.Done()
		return nil, errors.New("gave up")
	}
	early, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	early.CancelStarts()
	if err := early.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer early.Stop(t.Context())
	_, err = send(early, command("deposit", "alice", "", "1"))
	wantKind(t, err, service.KindUnavailable)
}

// A command whose sandbox cannot start because a resource of the host is used up is refused with
// that reason, like a deployment.
func TestAStartBeyondTheQuota(t *testing.T) {
	full := &service.Error{Kind: service.KindQuota, Resource: "sandbox_bytes", Used: 9, Limit: 10,
		Message: "sandbox_bytes is used up"}
	e, _, _ := startBank(t, 1, func(o *Options) {
		o.NewGuest = func(context.Context, int) (Guest, error) { return nil, fmt.Errorf("a sandbox: %w", full) }
	})
	_, err := send(e, command("deposit", "alice", "", "1"))
	wantKind(t, err, service.KindQuota)
	var own *service.Error
	if !errors.As(err, &own) || own.Resource != full.Resource || own.Used != 9 || own.Limit != 10 ||
		own.Service != "bank" || !strings.Contains(own.Message, full.Message) {
		t.Errorf("the refusal is %+v", own)
	}
	if full.Service != "" || full.Message != "sandbox_bytes is used up" {
		t.Error("the error of the sandbox was changed")
	}
}
