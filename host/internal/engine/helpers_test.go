package engine

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openJournal opens a journal that is closed with the test.
func openJournal(t testing.TB, s journal.Storage) *commitlog.Journal {
	t.Helper()
	j, err := commitlog.Open(t.Context(), s, commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close(context.Background()) })
	return j
}

// bankOptions are those of a bank with the given number of shards.
func bankOptions(t testing.TB, log Log, shards int) (Options, []*bankGuest) {
	o := Options{Spec: service.Spec{Service: "bank", Settings: service.Settings{Shards: shards}},
		Manifest: bankManifest, Log: log, Account: budget.New(nil)}
	var guests []*bankGuest
	for range shards {
		guests = append(guests, newBankGuest(t))
	}
	o.NewGuest = func(_ context.Context, shard int) (Guest, error) { return guests[shard], nil }
	return o, guests
}

// guests are those that the shards of a bank will have.
func (o *Options) guests(t testing.TB) (guests []*bankGuest) {
	for shard := range o.Spec.Settings.Shards {
		g, err := o.NewGuest(t.Context(), shard)
		if err != nil {
			t.Fatal(err)
		}
		guests = append(guests, g.(*bankGuest))
	}
	return guests
}

// start makes and starts an engine that is stopped with the test.
func start(t testing.TB, o Options) *Engine {
	t.Helper()
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Stop(context.Background()) // may have been stopped, with an error
		if held := e.options.Account.Used(budget.SandboxBytes); held != 0 {
			t.Errorf("%d bytes were not given back", held)
		}
	})
	return e
}

// startBank starts a bank on a journal in memory.
func startBank(t testing.TB, shards int, change func(*Options)) (*Engine, []*bankGuest, *commitlog.Journal) {
	t.Helper()
	j := openJournal(t, journaltest.NewMemory().Storage())
	o, guests := bankOptions(t, j, shards)
	if change != nil {
		change(&o)
	}
	return start(t, o), guests, j
}

// withSchema gives o's module another state schema, and earlier ones that it takes.
func (o *Options) withSchema(t testing.TB, schema uint32, earlier ...uint32) {
	m := *o.Manifest
	m.StateSchema, m.EarlierSchemas = schema, earlier
	o.Manifest = &m
	for _, g := range o.guests(t) {
		g.schema, g.earlier = schema, earlier
	}
}

type replied struct {
	reply service.Reply
	err   error
}

// send waits for the answer to a command.
func send(e *Engine, c service.Command) (service.Reply, error) {
	got := make(chan replied, 1)
	if err := e.Submit(c, func(r service.Reply, err error) { got <- replied{r, err} }); err != nil {
		return service.Reply{}, err
	}
	r := <-got
	return r.reply, r.err
}

// ask waits for the answer to a query.
func ask(e *Engine, q service.Query) (service.QueryReply, error) {
	type answered struct {
		reply service.QueryReply
		err   error
	}
	got := make(chan answered, 1)
	if err := e.Query(q, func(r service.QueryReply, err error) { got <- answered{r, err} }); err != nil {
		return service.QueryReply{}, err
	}
	r := <-got
	return r.reply, r.err
}

// counted returns e's Status when each shard has finished all earlier tasks: after the client has
// its answer, a shard still counts, takes snapshots and recycles.
func counted(t testing.TB, e *Engine) ([]service.ShardStatus, service.Counters) {
	t.Helper()
	for _, s := range e.shards {
		done := make(chan error, 1)
		late := service.Command{Deadline: time.Unix(0, 1)} // already passed, so nothing is done
		if s.mail.put(&task{shard: s, command: late, snapshot: func(err error) { done <- err }}) != admissionAdmitted {
			t.Fatal("a mailbox takes nothing")
		}
		wantKind(t, <-done, service.KindDeadline)
	}
	return e.Status()
}

func command(typ, key, id, data string) service.Command {
	return service.Command{Service: "bank", Key: service.Key(key), Type: service.Type(typ),
		ID: service.CommandID(id), Data: []byte(data)}
}

func balance(key string) service.Query {
	return service.Query{Service: "bank", Key: service.Key(key), Type: "balance"}
}

// wantKind fails the test unless err is of the kind.
func wantKind(t testing.TB, err error, kind service.Kind) {
	t.Helper()
	if err == nil || service.KindOf(err) != kind {
		t.Fatalf("got %v, want an error of kind %s", err, kind)
	}
}

// golden compares got with a file of testdata, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the trace is not that of %s; got:\n%s", path, got)
	}
}

// lines keeps what was logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// count is the number of lines that contain part.
func (l *lines) count(part string) (n int) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
