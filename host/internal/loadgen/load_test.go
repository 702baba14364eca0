package loadgen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// fakeBank behaves like the bank. It refuses every n-th command as overloaded, and carries out
// every m-th one but returns an unknown outcome.
type fakeBank struct {
	mu       sync.Mutex
	calls    int
	overload int
	unknown  int
	position service.Position
	balance  map[service.Key]int64
	version  map[service.Key]service.Version
	answers  map[service.CommandID]service.Reply
}

func newFakeBank() *fakeBank {
	return &fakeBank{balance: map[service.Key]int64{}, version: map[service.Key]service.Version{},
		answers: map[service.CommandID]service.Reply{}}
}

func (b *fakeBank) Send(_ context.Context, c service.Command) (service.Reply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if r, ok := b.answers[c.ID]; ok {
		return r, nil
	}
	if b.overload > 0 && b.calls%b.overload == 0 {
		return service.Reply{}, service.Errorf(service.KindOverloaded, "full")
	}
	var in struct{ Amount int64 }
	if err := json.Unmarshal(c.Data, &in); err != nil {
		return service.Reply{}, service.Errorf(service.KindFault, "%w", err)
	}
	switch c.Type {
	case "withdraw":
		if b.balance[c.Key] < in.Amount {
			return service.Reply{}, &service.Error{Kind: service.KindRejected, Code: "insufficient_funds"}
		}
		b.balance[c.Key] -= in.Amount
	case "deposit":
		b.balance[c.Key] += in.Amount
	}
	b.position++
	b.version[c.Key]++
	r := service.Reply{Service: c.Service, Key: c.Key, CommandID: c.ID, Events: 1, Position: b.position,
		Version: b.version[c.Key]}
	b.answers[c.ID] = r
	if b.unknown > 0 && b.calls%b.unknown == 0 {
		return service.Reply{}, service.Errorf(service.KindUnknown, "cut")
	}
	return r, nil
}

func (b *fakeBank) Query(_ context.Context, q service.Query) (service.QueryReply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data := fmt.Appendf(nil, `{"balance":%d}`, b.balance[q.Key])
	return service.QueryReply{Data: data, Version: b.version[q.Key]}, nil
}

func TestBooksAgreeWithAnHonestBank(t *testing.T) {
	bank := newFakeBank()
	bank.overload, bank.unknown = 7, 11
	books := NewBooks(50)
	senders := []Sender{bank, bank}
	opened, err := Open(t.Context(), Load{Accounts: 50, Clients: 8, Run: "open"}, senders, books)
	if err != nil || opened.Committed != 100 || opened.Events != 100 {
		t.Fatalf("opened %+v, %v", opened, err)
	}
	loaded, err := Run(t.Context(), Load{Accounts: 50, Alpha: 1.5, Clients: 8, Commands: 2000, Run: "load"}, senders,
		books)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Committed+loaded.Rejected != 2000 || loaded.Again == 0 || loaded.P50 <= 0 || loaded.P999 < loaded.P50 {
		t.Errorf("result does not add up: %+v", loaded)
	}
	audit, err := books.Audit(t.Context(), "bank", bank)
	if err != nil || !audit.OK() || audit.Accounts != 50 || audit.Found == 0 {
		t.Errorf("audit %+v, %v", audit, err)
	}
	if books.Highest() != bank.position || books.Events() != uint64(bank.position) {
		t.Errorf("books say position %d after %d events, the bank %d", books.Highest(), books.Events(), bank.position)
	}
}

// An audit that cannot fail proves nothing.
func TestAuditFindsWhatIsWrong(t *testing.T) {
	for name, cheat := range map[string]func(*fakeBank){
		"money gone":     func(b *fakeBank) { b.balance[Account(3)]-- },
		"event twice":    func(b *fakeBank) { b.version[Account(3)]++ },
		"money moved":    func(b *fakeBank) { b.balance[Account(3)]--; b.balance[Account(4)]++ },
		"account vanish": func(b *fakeBank) { delete(b.balance, Account(0)) },
	} {
		t.Run(name, func(t *testing.T) {
			bank, books := newFakeBank(), NewBooks(5)
			if _, err := Open(t.Context(), Load{Accounts: 5, Run: "open"}, []Sender{bank}, books); err != nil {
				t.Fatal(err)
			}
			cheat(bank)
			if audit, err := books.Audit(t.Context(), "bank", bank); err != nil || audit.OK() || len(audit.Wrong) == 0 {
				t.Errorf("not found: %+v, %v", audit, err)
			}
		})
	}
}

func TestLoadStopsAtItsTimeAndAtAnError(t *testing.T) {
	bank, books := newFakeBank(), NewBooks(5)
	if r, err := Run(t.Context(), Load{Accounts: 5, Duration: 20 * time.Millisecond, Run: "r"}, []Sender{bank},
		books); err != nil || r.Elapsed < 20*time.Millisecond {
		t.Errorf("%+v, %v", r, err)
	}
	broken := senderFunc(func(context.Context, service.Command) (service.Reply, error) {
		return service.Reply{}, service.Errorf(service.KindTrap, "unreachable")
	})
	if _, err := Run(t.Context(), Load{Accounts: 5, Duration: time.Hour, Run: "r"}, []Sender{broken},
		books); service.KindOf(err) != service.KindTrap {
		t.Errorf("a trap ends the load with %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	waiting := senderFunc(func(ctx context.Context, _ service.Command) (service.Reply, error) {
		<-ctx.Done()
		return service.Reply{}, ctx.Err()
	})
	_, err := Run(ctx, Load{Accounts: 5, Duration: time.Hour, Run: "r"}, []Sender{waiting}, books)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled load ends with %v", err)
	}
	if _, err := Run(ctx, Load{}, nil, books); err == nil {
		t.Error("an empty load is accepted")
	}
}

type senderFunc func(context.Context, service.Command) (service.Reply, error)

func (f senderFunc) Send(ctx context.Context, c service.Command) (service.Reply, error) {
	return f(ctx, c)
}
