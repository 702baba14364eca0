package loadgen

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Books record what clients were told: the balance of each account by the acknowledged commands,
// and the highest position and version. Several loads on the same bank share one. Methods may be
// called concurrently.
type Books struct {
	accounts []entry
	events   atomic.Uint64
	highest  atomic.Uint64 // position
}

type entry struct {
	mu      sync.Mutex
	balance int64
	version service.Version
}

// NewBooks makes empty books for a bank with the given number of accounts.
func NewBooks(accounts int) *Books { return &Books{accounts: make([]entry, accounts)} }

func (b *Books) committed(account int, kind service.Type, amount int64, r *service.Reply) {
	b.events.Add(uint64(r.Events))
	for p := uint64(r.Position); ; {
		old := b.highest.Load()
		if p <= old || b.highest.CompareAndSwap(old, p) {
			break
		}
	}
	e := &b.accounts[account]
	e.mu.Lock()
	defer e.mu.Unlock()
	switch kind {
	case "deposit":
		e.balance += amount
	case "withdraw":
		e.balance -= amount
	}
	e.version = max(e.version, r.Version)
}

// Events returns the number of events that clients were told of.
func (b *Books) Events() uint64 { return b.events.Load() }

// Highest returns the highest position that a client was told.
func (b *Books) Highest() service.Position { return service.Position(b.highest.Load()) }

// Querier answers queries, as a host does.
type Querier interface {
	Query(ctx context.Context, q service.Query) (service.QueryReply, error)
}

// Audit is what [Books.Audit] found.
type Audit struct {
	Accounts int      `json:"accounts"` // that were queried
	Expected int64    `json:"expected"` // sum of all balances according to the books
	Found    int64    `json:"found"`    // sum of all balances according to the bank
	Wrong    []string `json:"wrong"`    // accounts that differ in balance or version, 10 at most
}

// OK reports whether every account agrees with the books.
func (a Audit) OK() bool { return len(a.Wrong) == 0 && a.Expected == a.Found }

// Audit queries the balance of every account and compares it with the books. It must run after the
// loads, and only commands of these loads may have changed the accounts. The first failed query
// ends it with an error.
func (b *Books) Audit(ctx context.Context, bank service.Name, q Querier) (Audit, error) {
	a := Audit{Accounts: len(b.accounts), Wrong: []string{}}
	var mu sync.Mutex
	var next atomic.Int64
	var wait sync.WaitGroup
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for range 32 { // enough to keep every shard busy
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(b.accounts); i = int(next.Add(1)) - 1 {
				e := &b.accounts[i]
				balance, version, err := balanceOf(ctx, bank, q, Account(i))
				if err != nil {
					fail(err)
					return
				}
				mu.Lock()
				a.Expected += e.balance
				a.Found += balance
				if (balance != e.balance || version != e.version) && len(a.Wrong) < 10 {
					a.Wrong = append(a.Wrong, fmt.Sprintf("%s has %d at version %d; its clients were told %d at "+
						"version %d", Account(i), balance, version, e.balance, e.version))
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return a, context.Cause(ctx)
}

func balanceOf(ctx context.Context, bank service.Name, q Querier, key service.Key) (int64, service.Version, error) {
	r, err := q.Query(ctx, service.Query{Service: bank, Key: key, Type: "balance"})
	if err != nil {
		return 0, 0, fmt.Errorf("balance of %s: %w", key, err)
	}
	var answer struct {
		Balance int64 `json:"balance"`
	}
	if err := json.Unmarshal(r.Data, &answer); err != nil {
		return 0, 0, fmt.Errorf("balance of %s: answer %.100q: %w", key, r.Data, err)
	}
	return answer.Balance, r.Version, nil
}
