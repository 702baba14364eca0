package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// A service whose log has reached its limit is refused by name, before its guest runs. It still
// reads, and answers repeated ids. It continues when a retention has freed bytes.
func TestALogHasItsQuota(t *testing.T) {
	const limit = 8 << 10
	var now atomic.Int64
	now.Store(1e18)
	clock := func() journal.UnixNano { return journal.UnixNano(now.Load()) }
	j, err := commitlog.Open(t.Context(), journaltest.NewMemory().Storage(), commitlog.Options{Clock: clock,
		Codec: journal.CodecNone})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close(context.Background()) })
	host := budget.New(nil)
	account := host.Child("bank", budget.Limits{budget.DiskBytes: limit})
	o, _ := bankOptions(t, j, 1)
	o.Account, o.Clock = account, clock
	e := start(t, o)
	n := 0
	deposit := func() error {
		n++
		_, err := send(e, command("deposit", "alice", fmt.Sprint("c", n), "1"))
		return err
	}
	full := error(nil)
	for full == nil && n < limit {
		full = deposit()
	}
	var refusal *service.Error
	if !errors.As(full, &refusal) || refusal.Kind != service.KindQuota || refusal.Resource != "disk_bytes" ||
		refusal.Limit != limit || refusal.Used < limit || refusal.Service != "bank" {
		t.Fatalf("after %d commands: %+v", n, full)
	}
	if size, err := j.Measure(t.Context(), "bank", nil); err != nil || size.Bytes < limit || size.Bytes > limit+1<<10 {
		t.Errorf("the log has %d bytes, %v", size.Bytes, err)
	}
	if host.Used(budget.DiskBytes) < limit {
		t.Errorf("the host counts %d bytes", host.Used(budget.DiskBytes))
	}
	_, before := counted(t, e)
	wantKind(t, deposit(), service.KindQuota)
	if _, after := counted(t, e); after.Fuel != before.Fuel {
		t.Error("the guest ran for a command that cannot be kept")
	}
	if r, err := send(e, command("deposit", "alice", "c1", "1")); err != nil || !r.Repeated {
		t.Errorf("a command that was carried out: %+v, %v", r, err)
	}
	wantBalance(t, e, "alice", int(j.Head("bank")))
	now.Add(int64(25 * time.Hour))
	_, err = j.Retain(t.Context(), "bank", journal.Retention{Before: j.Head("bank"),
		Cover: func(_ context.Context, key string, _ journal.Version) error {
			done := make(chan error, 1)
			if err := e.Snapshot(service.Key(key), func(err error) { done <- err }); err != nil {
				return err
			}
			return <-done
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := deposit(); err != nil {
		t.Errorf("after a retention: %v", err)
	}
	if used := account.Used(budget.DiskBytes); used >= limit/2 {
		t.Errorf("after a retention the log counts for %d bytes", used)
	}
}

// A service that exceeds its rate is refused until the debt is paid.
func TestALogHasItsRate(t *testing.T) {
	const rate = 10 << 10
	var now atomic.Int64
	now.Store(1e18)
	e, _, _ := startBank(t, 2, func(o *Options) {
		o.Clock = func() journal.UnixNano { return journal.UnixNano(now.Load()) }
		o.Spec.Limits.DiskRate = rate
	})
	n := 0
	deposit := func() error {
		n++
		c := command("deposit", fmt.Sprint("k", n), fmt.Sprint("c", n), "1")
		c.Data = append(bytes.Repeat([]byte("0"), 4<<10), '1')
		_, err := send(e, c)
		return err
	}
	var refusal *service.Error
	for n < 1000 && refusal == nil {
		errors.As(deposit(), &refusal)
	}
	if refusal == nil || refusal.Kind != service.KindOverloaded || refusal.Resource != rateResource ||
		refusal.Limit != rate || refusal.Used <= rate || refusal.RetryAfter <= 0 {
		t.Fatalf("after %d commands: %+v", n, refusal)
	}
	if n < diskBurst*rate/(9<<10) {
		t.Errorf("refused after %d commands already", n)
	}
	now.Add(int64(refusal.RetryAfter))
	if err := deposit(); err != nil {
		t.Errorf("after as long as was said: %v", err)
	}
	wantKind(t, deposit(), service.KindOverloaded)
	now.Add(int64(time.Hour))
	accepted := 0
	for deposit() == nil {
		accepted++
	}
	if limit := diskBurst*rate/(4<<10) + 2; accepted > limit {
		t.Errorf("after an hour %d commands are taken at once; %d are a burst", accepted, limit)
	}
	if r, err := ask(e, balance("k1")); err != nil || string(r.Data) != "1" {
		t.Errorf("a query: %s, %v", r.Data, err)
	}
}
