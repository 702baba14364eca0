package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestRefusedAtOnce(t *testing.T) {
	e, _, _ := startBank(t, 2, func(o *Options) { o.Spec.Limits.CommandBytes = 10 })
	for _, c := range []struct {
		name   string
		change func(*service.Command)
		kind   service.Kind
	}{
		{"another service", func(c *service.Command) { c.Service = "orders" }, service.KindInternal},
		{"no key", func(c *service.Command) { c.Key = "" }, service.KindInvalid},
		{"a key with a control character", func(c *service.Command) { c.Key = "a\n" }, service.KindInvalid},
		{"a long key", func(c *service.Command) { c.Key = service.Key(strings.Repeat("k", 257)) }, service.KindInvalid},
		{"unknown type", func(c *service.Command) { c.Type = "rob" }, service.KindUnknownType},
		{"a query's type", func(c *service.Command) { c.Type = "balance" }, service.KindUnknownType},
		{"a giant type", func(c *service.Command) {
			c.Type = service.Type(strings.Repeat("t", 10000))
		}, service.KindUnknownType},
		{"bad id", func(c *service.Command) { c.ID = "a b" }, service.KindInvalid},
		{"too much data", func(c *service.Command) { c.Data = make([]byte, 11) }, service.KindTooLarge},
		{"broken metadata", func(c *service.Command) { c.Metadata = abi.Metadata{1, 2, 3} }, service.KindInvalid},
		{"too much metadata", func(c *service.Command) {
			c.Metadata = make([]byte, abi.MaxMetadataSize+1)
		}, service.KindTooLarge},
	} {
		cmd := command("deposit", "alice", "c1", "1")
		c.change(&cmd)
		err := e.Submit(cmd, func(service.Reply, error) { t.Errorf("%s: answered", c.name) })
		if service.KindOf(err) != c.kind || err == nil {
			t.Errorf("%s: got %v, want %s", c.name, err, c.kind)
		}
		if len(err.Error()) > 500 {
			t.Errorf("%s: the error has %d bytes", c.name, len(err.Error()))
		}
	}
	err := e.Query(service.Query{Service: "bank", Key: "alice", Type: "deposit"}, func(service.QueryReply, error) {
		t.Error("answered")
	})
	wantKind(t, err, service.KindUnknownType)
	r, err := send(e, command("deposit", "alice", "c1", "1"))
	if err != nil || r.Version != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := New(Options{Spec: service.Spec{Service: "Bank"}})
	wantKind(t, err, service.KindInvalid)
	for _, want := range []string{"service name", "no manifest", "no log", "no way to make guests"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestWhatIsJournaled looks at the record of a command.
func TestWhatIsJournaled(t *testing.T) {
	for _, omit := range []bool{false, true} {
		disk := journaltest.NewMemory()
		j := openJournal(t, disk.Storage())
		o, _ := bankOptions(t, j, 1)
		o.Spec.Module = service.Digest{1, 2, 3}
		o.Spec.Settings.OmitCommandData = omit
		now := journal.UnixNano(1000)
		o.Clock = func() journal.UnixNano { now -= 10; return now } // a clock that runs backwards
		e := start(t, o)
		c := command("deposit", "alice", "", "100")
		c.Metadata = c.Metadata.AppendPair("user", "root")
		first, err := send(e, c)
		if err != nil {
			t.Fatal(err)
		}
		second, err := send(e, c)
		if err != nil {
			t.Fatal(err)
		}
		if len(first.CommandID) != 32 || first.CommandID == second.CommandID {
			t.Errorf("ids %q and %q", first.CommandID, second.CommandID)
		}
		var all []*journal.Committed
		if err := j.Commits(t.Context(), "bank", 0, func(c *journal.Committed) error {
			all = append(all, c)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		a, b := &all[0].Command, &all[1].Command
		if a.ID != journal.CommandID(first.CommandID) || a.Type != "deposit" || a.Key != "alice" ||
			a.Module != (journal.Digest{1, 2, 3}) ||
			!bytes.Equal(a.Metadata, c.Metadata) || a.Fuel != 2 || string(a.Reply) != "100" {
			t.Errorf("recorded %+v", a)
		}
		if a.Time != 990 || b.Time != 990 {
			t.Errorf("times %d and %d", a.Time, b.Time)
		}
		if a.Seed == b.Seed || a.Seed == [16]byte{} {
			t.Errorf("seeds %x and %x", a.Seed, b.Seed)
		}
		if string(a.Data) != map[bool]string{false: "100", true: ""}[omit] {
			t.Errorf("omit %v: data %q", omit, a.Data)
		}
	}
}

func TestUnknownEvent(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	appendEvent := func(key, typ string) {
		done := make(chan error)
		err := j.Append(t.Context(),
			&journal.Commit{Log: "bank", Command: journal.Command{ID: journal.CommandID("x" + key), Key: key},
				Events: []journal.NewEvent{{Type: "deposited", Data: []byte("50")}, {Type: typ, Data: []byte("20")}}},
			func(_ journal.Receipt, err error) { done <- err })
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	appendEvent("alice", "stolen")
	appendEvent("bob", "taken") // an alias
	o, _ := bankOptions(t, j, 1)
	e := start(t, o)
	_, err := ask(e, balance("alice"))
	wantKind(t, err, service.KindFault)
	for _, want := range []string{"stolen", "version 2", "alice"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if r, err := ask(e, balance("bob")); err != nil || string(r.Data) != "30" || r.Version != 2 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// plug is a log that keeps the shard busy in Append until it is pulled.
type plug struct {
	Log
	gate chan struct{}
}

func (p *plug) Append(ctx context.Context, c *journal.Commit, done func(journal.Receipt, error)) error {
	select {
	case <-p.gate:
	case <-ctx.Done():
		return &journal.Error{Kind: journal.KindCanceled, Err: ctx.Err()}
	}
	return p.Log.Append(ctx, c, done)
}

func TestFullMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plug{openJournal(t, journaltest.NewMemory().Storage()), make(chan struct{})}
		o, _ := bankOptions(t, p, 1)
		o.Spec.Limits.MailboxCommands, o.Spec.Limits.MailboxBytes = 4, 100
		e := start(t, o)
		var answers atomic.Int64
		submit := func(size int) error {
			err := e.Submit(command("deposit", "alice", "", strings.Repeat("0", size-1)+"1"),
				func(_ service.Reply, err error) {
					if err != nil {
						t.Error(err)
					}
					answers.Add(1)
				})
			synctest.Wait()
			return err
		}
		check := func(queued int, size int64) {
			t.Helper()
			status, _ := e.Status()
			if status[0].Queued != queued || status[0].QueuedBytes != size {
				t.Errorf("%+v, want %d with %d bytes", status[0], queued, size)
			}
		}
		for i, size := range []int{200, 300} { // one in progress; a giant in an empty mailbox
			if err := submit(size); err != nil {
				t.Fatal(i, err)
			}
		}
		check(1, 300)
		var own *service.Error
		if err := submit(1); !errors.As(err, &own) || own.Kind != service.KindOverloaded ||
			own.Resource != "mailbox_bytes" || own.Used != 300 || own.Limit >= 300 || own.RetryAfter <= 0 {
			t.Errorf("beyond its bytes: %+v", err)
		}
		p.gate <- struct{}{}
		p.gate <- struct{}{}
		synctest.Wait()
		check(0, 0)
		for range 5 { // one in progress
			if err := submit(1); err != nil {
				t.Fatal(err)
			}
		}
		check(4, 4)
		time.Sleep(3 * time.Second)
		err := submit(1) // for their number
		wantKind(t, err, service.KindOverloaded)
		if !errors.As(err, &own) || own.Resource != "mailbox_commands" || own.Used != 4 || own.Limit != 4 {
			t.Errorf("beyond their number: %+v", err)
		}
		if own.RetryAfter < 2900*time.Millisecond || own.RetryAfter > maxRetry {
			t.Errorf("retry after %v, the command at work takes 3 s already", own.RetryAfter)
		}
		close(p.gate)
		synctest.Wait()
		check(0, 0)
		if _, sum := e.Status(); sum.Overloaded != 2 || sum.Committed != 7 || answers.Load() != 7 {
			t.Errorf("%+v, %d answers", sum, answers.Load())
		}
	})
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{origin: time.Now()}
		if got := p.retryAfter(1000); got != minRetry {
			t.Errorf("at first %v", got)
		}
		for range 50 {
			began := p.begin()
			time.Sleep(100 * time.Millisecond)
			p.end(began, 20)
		}
		if got := p.retryAfter(100); got < 250*time.Millisecond || got > 260*time.Millisecond {
			t.Errorf("half of 100 at 5 ms each: %v", got)
		}
		if got := p.retryAfter(1 << 40); got != maxRetry {
			t.Errorf("for many: %v", got)
		}
	})
}

// TestStopAnswersEveryCommand stops without patience while a command is stuck and others wait. Each gets one
// answer.
func TestStopAnswersEveryCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plug{openJournal(t, journaltest.NewMemory().Storage()), make(chan struct{})}
		o, guests := bankOptions(t, p, 1)
		e, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, e.Submit(command("deposit", "alice", "early", "1"), nil), service.KindUnavailable)
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var answers []string
		for i := range 5 {
			id := fmt.Sprint("c", i)
			if err := e.Submit(command("deposit", "alice", id, "1"), func(_ service.Reply, err error) {
				answers = append(answers, id+" "+service.KindOf(err).String())
			}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := e.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		want := "c0 unavailable c1 unavailable c2 unavailable c3 unavailable c4 unavailable"
		if got := strings.Join(answers, " "); got != want {
			t.Errorf("got %s", got)
		}
		if !guests[0].closed {
			t.Error("the guest is open")
		}
		wantKind(t, e.Submit(command("deposit", "alice", "late", "1"), nil), service.KindUnavailable)
	})
}

func TestStopWithoutStart(t *testing.T) {
	o, guests := bankOptions(t, openJournal(t, journaltest.NewMemory().Storage()), 3)
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, g := range guests {
		if g.closed {
			t.Error("a guest is closed that was never made")
		}
	}
	if err := e.Start(t.Context()); err == nil {
		t.Error("started after stop")
	}
}

// TestStopUnderLoad stops the engine while senders go on. Every accepted command is answered once, and is in
// the log exactly if its answer says so.
func TestStopUnderLoad(t *testing.T) {
	for round := range 20 {
		j := openJournal(t, journaltest.NewMemory().Storage())
		o, _ := bankOptions(t, j, 2)
		e := start(t, o)
		var accepted, answered, committed atomic.Int64
		var senders sync.WaitGroup
		for s := range 4 {
			senders.Go(func() {
				for i := range 100 {
					err := e.Submit(command("deposit", fmt.Sprint("k", i%7), fmt.Sprint(s, "-", i), "1"),
						func(_ service.Reply, err error) {
							answered.Add(1)
							if err == nil {
								committed.Add(1)
							}
						})
					if err == nil {
						accepted.Add(1)
					}
				}
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		if round%2 == 0 {
			cancel() // no patience
		}
		e.Stop(ctx)
		cancel()
		senders.Wait()
		// Without patience the journal may still owe some answers.
		j.Close(t.Context())
		if accepted.Load() != answered.Load() {
			t.Errorf("%d accepted, %d answered", accepted.Load(), answered.Load())
		}
		if head := j.Head("bank"); int64(head) != committed.Load() {
			t.Errorf("%d committed, the log has %d", committed.Load(), head)
		}
	}
}

func TestCounters(t *testing.T) {
	e, guests, _ := startBank(t, 1, nil)
	guests[0].memory = 12345
	for i, typ := range []string{"deposit", "withdraw", "withdraw", "trap", "fault", "deposit"} {
		send(e, command(typ, "alice", fmt.Sprint("c", i), "60"))
	}
	send(e, command("deposit", "alice", "c0", "60"))
	ask(e, balance("bob"))
	status, got := counted(t, e)
	want := service.Counters{Committed: 3, Events: 3, Rejected: 1, Failed: 2, Repeated: 1, Queries: 1, Hydrated: 4,
		Resets: 1, Fuel: 14} // failed calls use fuel, too
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if status[0].Resident != 2 || len(status) != 1 {
		t.Errorf("status %+v", status)
	}
	e.Stop(t.Context())
	if status, _ := e.Status(); status[0].MemoryBytes != 12345 {
		t.Errorf("status %+v", status)
	}
}

// TestShardsAreStable checks that a key has the same shard in every run, so that results of one run can be
// compared with another's.
func TestShardsAreStable(t *testing.T) {
	counts := make([]int, 4)
	for i := range 10000 {
		counts[shardOf(service.Key(fmt.Sprint("account-", i)), 4)]++
	}
	for _, n := range counts {
		if n < 2300 || n > 2700 {
			t.Errorf("uneven: %v", counts)
		}
	}
	if a, b := shardOf("alice", 1024), shardOf("bob", 1024); a != 956 || b != 589 {
		t.Errorf("alice and bob moved to %d and %d", a, b)
	}
}

// loads is a carrier with room for replies of limited size.
type loads struct {
	room    int
	unloads int
	loaded  []int
}

func (l *loads) Unload() { l.unloads++ }

func (l *loads) Load(reply int) error {
	if l.loaded = append(l.loaded, reply); reply > l.room {
		return &service.Error{Kind: service.KindOverloaded, Resource: "bytes_in_flight", Message: "no room"}
	}
	return nil
}

// The carrier of a query is asked for room before the reply waits for the log.
func TestRoomForAReplyIsAskedFor(t *testing.T) {
	e, _, _ := startBank(t, 1, nil)
	if _, err := send(e, command("deposit", "alice", "c1", "1")); err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{1000, 0} {
		l := &loads{room: room}
		q := balance("alice")
		q.Carrier = l
		r, err := ask(e, q)
		if room == 0 {
			wantKind(t, err, service.KindOverloaded)
		} else if err != nil || len(r.Data) == 0 || l.loaded[0] != len(r.Data) {
			t.Errorf("%+v, %v; asked for %v", r, err, l.loaded)
		}
		if l.unloads != 1 || len(l.loaded) != 1 {
			t.Errorf("unloaded %d times, loaded %v", l.unloads, l.loaded)
		}
	}
}
