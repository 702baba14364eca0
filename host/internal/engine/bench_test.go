package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// nopGuest does nothing, so that only the engine is measured.
type nopGuest struct{ *bankGuest }

var nopEvents = []journal.NewEvent{{Type: "deposited", Data: []byte("1")}}

func (nopGuest) Handle(context.Context, service.GuestCall) (service.Outcome, error) {
	return service.NewOutcome(nopEvents, nil, 0), nil
}

func (nopGuest) Query(context.Context, service.GuestQuery) (service.Outcome, error) {
	return service.NewOutcome(nil, nil, 0), nil
}

// BenchmarkQuery measures a query through mailbox, shard and Settle.
func BenchmarkQuery(b *testing.B) {
	j, err := commitlog.Open(b.Context(), journaltest.NewMemory().Storage(), commitlog.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close(context.Background())
	benchmark(b, j, func(e *Engine, i int, done func()) error {
		return e.Query(balance(keys[i%len(keys)]), func(service.QueryReply, error) { done() })
	})
}

// BenchmarkCommand measures a command through the engine and a journal in memory.
func BenchmarkCommand(b *testing.B) {
	j, err := commitlog.Open(b.Context(), journaltest.NewMemory().Storage(), commitlog.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close(context.Background())
	benchmark(b, j, func(e *Engine, i int, done func()) error {
		return e.Submit(command("deposit", keys[i%len(keys)], "", "1"), func(service.Reply, error) { done() })
	})
}

var keys = func() (keys []string) {
	for i := range 1000 {
		keys = append(keys, fmt.Sprint("account-", i))
	}
	return keys
}()

// benchmark keeps 512 requests in flight.
func benchmark(b *testing.B, log Log, request func(e *Engine, i int, done func()) error) {
	o, guests := bankOptions(b, log, 2)
	o.NewGuest = func(_ context.Context, shard int) (Guest, error) { return nopGuest{guests[shard]}, nil }
	e := start(b, o)
	free := make(chan struct{}, 512)
	for range cap(free) {
		free <- struct{}{}
	}
	done := func() { free <- struct{}{} }
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		<-free
		if err := request(e, i, done); err != nil {
			b.Fatal(err)
		}
		i++
	}
	for range cap(free) {
		<-free
	}
}
