package engine

import (
	"context"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// stamping is a guest whose events have metadata, and which logs what it gets back.
type stamping struct {
	*bankGuest
	own abi.Metadata
	got *[]string
}

func (g stamping) Handle(ctx context.Context, c service.GuestCall) (service.Outcome, error) {
	return service.NewOutcome([]journal.NewEvent{{Type: "deposited", Data: []byte("1"), Metadata: g.own}}, nil, 0), nil
}

func (g stamping) Hydrate(ctx context.Context, slot uint32, key service.Key, from service.GuestSnapshot,
	events service.GuestEvents) error {
	return events(func(e service.GuestEvent) error {
		*g.got = append(*g.got, string(e.Metadata))
		return nil
	})
}

// Readers get the metadata of the command with its event. The guest gets back only what it wrote, so applying
// the event again has the same effect.
func TestAGuestGetsBackItsOwnMetadata(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	o, _ := bankOptions(t, j, 1)
	own := abi.Metadata(nil).AppendPair("tenant", "acme")
	var got []string
	o.NewGuest = func(context.Context, int) (Guest, error) { return stamping{newBankGuest(t), own, &got}, nil }
	sent := abi.Metadata(nil).AppendPair("tenant", "other").AppendPair("actor", "ada")
	for range 2 { // the second engine hydrates what the first has written
		c := service.Command{Service: "bank", Key: "alice", Type: "deposit", Data: []byte("1"), Metadata: sent}
		e := start(t, o)
		if _, err := send(e, c); err != nil {
			t.Fatal(err)
		}
		if err := e.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 1 || got[0] != string(own) {
		t.Errorf("the guest got %q, want %q", got, own)
	}
	read := 0
	_, err := j.Load(t.Context(), "bank", "alice", 0, func(e *journal.Event) error {
		read++
		m := abi.Metadata(e.Metadata)
		tenant, _ := m.Get("tenant")
		actor, _ := m.Get("actor")
		if string(tenant) != "acme" || string(actor) != "ada" {
			t.Errorf("an event of tenant %q and actor %q", tenant, actor)
		}
		return nil
	})
	if err != nil || read != 2 {
		t.Errorf("%d events, %v", read, err)
	}
}
