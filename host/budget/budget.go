// Package budget bounds what a host holds at one time. It is a tree of accounts: the host's account
// is the root; below it are services, and below those connections and sandboxes. Code that is about
// to use a resource first takes it from the narrowest account that applies, which also takes it
// from all accounts above, and gives it back afterwards. So every sum of bounded things is bounded,
// too.
//
// A program that embeds a host opens accounts below that of the host for what it holds for its own
// clients. The limits and shares of accounts that it did not open are the host's.
package budget

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Resource is something that a host has a limited amount of.
type Resource uint8

// The resources that are held and given back.
const (
	// FlightBytes are the bytes in memory of bodies, messages and answers on their way in or out.
	FlightBytes Resource = iota
	// Sandboxes are the instances of modules. Each takes a few memory mappings.
	Sandboxes
	// SandboxBytes are the machine code, images, linear memories, call stacks, tables and
	// resident entities of sandboxes.
	SandboxBytes
	// JournalMemoryBytes are the caches and tables in memory of the stores of the journal.
	JournalMemoryBytes
	// Descriptors are open files and connections.
	Descriptors
	// DiskBytes are the bytes of modules and logs on disk.
	DiskBytes
	// Readers are scans of logs that run at the same time.
	Readers

	resources int = iota
)

var names = [resources]string{"bytes_in_flight", "sandboxes", "sandbox_bytes", "journal_memory_bytes", "descriptors",
	"disk_bytes", "readers"}

// String returns the stable name of the resource that clients and metrics see.
func (r Resource) String() string {
	if int(r) < resources {
		return names[r]
	}
	return fmt.Sprintf("resource %d", uint8(r))
}

// kind returns the error kind of a refusal: overloaded for resources that become free by
// themselves, quota for those that stay used until somebody acts.
func (r Resource) kind() service.Kind {
	switch r {
	case Sandboxes, SandboxBytes, JournalMemoryBytes, DiskBytes:
		return service.KindQuota
	}
	return service.KindOverloaded
}

// retryAfter is the wait that a refusal of kind overloaded asks for.
const retryAfter = time.Second

// Limits bound what an account may hold. A resource without an entry is bounded only by the
// accounts above.
type Limits map[Resource]int64

// Account is a node of the tree. It is safe for concurrent use.
type Account struct {
	parent *Account
	name   string
	group  bool                    // it only holds others together, and is not a holder itself
	used   [resources]atomic.Int64 // close to gone once the account is closed
	limit  [resources]atomic.Int64 // 0: no limit
	share  [resources]Share        // of the accounts right below; Parts is 0 if there is none
	denied [resources]atomic.Uint64

	mu       sync.Mutex // guards all below; held by Set
	children map[*Account]struct{}
	closed   bool
	released [resources]int64 // what Close gave back to the accounts above, less what holders have given back since
}

// gone marks a closed account: it is far below any value of an open one. A used value below gone/2
// means that the account is closed.
const gone = math.MinInt64 / 2

// New makes the root account of a host.
func New(l Limits) *Account { return newAccount(nil, "host", l) }

func newAccount(parent *Account, name string, l Limits) *Account {
	a := &Account{parent: parent, name: name}
	for r, n := range l {
		a.limit[r].Store(n)
	}
	return a
}

// Child opens an account below a. Operators see its name.
func (a *Account) Child(name string, l Limits) *Account {
	c := newAccount(a, name, l)
	a.adopt(c)
	return c
}

// Group opens an account below a that bounds what several accounts hold together, such as all
// connections. [Account.Holders] lists the accounts below it instead of the group.
func (a *Account) Group(name string, l Limits) *Account {
	c := newAccount(a, name, l)
	c.group = true
	a.adopt(c)
	return c
}

func (a *Account) adopt(c *Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.children == nil {
		a.children = map[*Account]struct{}{}
	}
	a.children[c] = struct{}{}
}

// Close removes the account from the tree. What it still holds is given back to the accounts above
// and returned, so that tests can find leaks. Holders call [Account.Give] as always, also after
// Close: the accounts above do not get the same amount twice. What is taken from a closed account
// is taken only from those above. Its refusals still count. A second Close returns nil.
func (a *Account) Close() (held Limits) {
	if !a.close() {
		return nil
	}
	if a.parent != nil {
		for r := range Resource(resources) {
			a.parent.denied[r].Add(a.denials(r))
		}
		a.parent.mu.Lock()
		delete(a.parent.children, a)
		a.parent.mu.Unlock()
	}
	for r, n := range a.held() {
		if held == nil {
			held = Limits{}
		}
		held[r] = n
		for up := a.parent; up != nil; up = up.parent {
			n = up.give(r, n)
		}
	}
	return held
}

// close makes Set ineffective. It returns false if the account is closed already.
func (a *Account) close() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.closed
	a.closed = true
	return !was
}

// held marks the account as closed, and returns what it held.
func (a *Account) held() Limits {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := Limits{}
	for r := range Resource(resources) {
		if n := a.used[r].Swap(gone); n != 0 {
			all[r], a.released[r] = n, n
		}
	}
	return all
}

// SetLimit changes the limit of a resource (0: no limit). It does not affect what is held already.
func (a *Account) SetLimit(r Resource, n int64) { a.limit[r].Store(n) }

// Share says how the accounts right below another one share a resource.
type Share struct {
	// Parts bounds what one account may hold to 1/Parts of what is left for all, less Reserve. So
	// the bound of each shrinks as more is in use, and accounts that hold much get nothing more.
	Parts int64
	// Small is what any account may hold as long as something is left. Reserve is the amount that
	// only accounts that hold at most Small can use.
	Small, Reserve int64
}

// SetShare makes the accounts right below share a resource fairly. It must be called before the
// first of them is opened.
func (a *Account) SetShare(r Resource, s Share) { a.share[r] = s }

// Limit returns the limit of a resource in this account; 0: no limit.
func (a *Account) Limit(r Resource) int64 { return a.limit[r].Load() }

// Used returns what the account and those below hold; 0 if it is closed.
func (a *Account) Used(r Resource) int64 {
	if n := a.used[r].Load(); n > gone/2 {
		return n
	}
	return 0
}

// Room returns how much may still be taken: the minimum of what this account and those above have
// left, shares included. It is math.MaxInt64 if nothing limits it.
func (a *Account) Room(r Resource) int64 {
	room := int64(math.MaxInt64)
	for at := a; at != nil; at = at.parent {
		if limit := at.limit[r].Load(); limit > 0 {
			room = min(room, max(0, limit-at.Used(r)))
		}
		if part, shared := at.part(r); shared {
			room = min(room, max(0, part-at.Used(r)))
		}
	}
	return room
}

// part returns what a may hold by its parent's share; shared is false if there is none.
func (a *Account) part(r Resource) (part int64, shared bool) {
	if a.parent == nil || a.parent.share[r].Parts <= 0 {
		return 0, false
	}
	s := &a.parent.share[r]
	return max(s.Small, (a.parent.Room(r)-s.Reserve)/s.Parts), true
}

// tightest returns the account with the least room among a and those above.
func (a *Account) tightest(r Resource) *Account {
	found, minRoom := a, int64(math.MaxInt64)
	for at := a; at != nil; at = at.parent {
		if limit := at.limit[r].Load(); limit > 0 && limit-at.Used(r) < minRoom {
			found, minRoom = at, limit-at.Used(r)
		}
	}
	return found
}

// Take takes n of a resource, or nothing. The error is a *service.Error of kind overloaded or
// quota. It names the resource, how much of it is used, and the limit; its Detail, for operators,
// names the largest holders.
func (a *Account) Take(r Resource, n int64) error {
	full, shared := a.take(r, n)
	if full == nil {
		return nil
	}
	full.denied[r].Add(1)
	return full.refusal(r, n, shared)
}

// TryTake is [Account.Take] for callers that have an alternative. It counts no refusal.
func (a *Account) TryTake(r Resource, n int64) bool {
	full, _ := a.take(r, n)
	return full == nil
}

// take returns the account that has too little left, or nil. shared means that something is left,
// but not for accounts that hold as much as a does.
func (a *Account) take(r Resource, n int64) (full *Account, shared bool) {
	for at := a; at != nil; at = at.parent {
		if !at.add(r, n) {
			a.undo(r, n, at)
			return at, false
		}
		if part, shared := at.part(r); shared && n > 0 && at.Used(r) > part {
			a.undo(r, n, at.parent)
			return at.parent.tightest(r), true
		}
	}
	return nil, false
}

func (a *Account) add(r Resource, n int64) bool {
	limit := a.limit[r].Load()
	if limit <= 0 {
		a.used[r].Add(n)
		return true
	}
	for {
		used := a.used[r].Load()
		if n > 0 && used > limit-n {
			return false
		}
		if a.used[r].CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// undo gives back what was taken from a and the accounts above, up to but not including to.
func (a *Account) undo(r Resource, n int64, to *Account) {
	at, rest := a, n
	for ; at != to; at = at.parent {
		rest = at.give(r, rest)
	}
	// An account was closed meanwhile, and its Close gave n-rest to accounts that nothing was taken from.
	for ; at != nil && rest != n; at = at.parent {
		at.used[r].Add(n - rest)
	}
}

// Give gives back n of what was taken. Unlike Take, it cannot fail.
func (a *Account) Give(r Resource, n int64) {
	for at := a; at != nil; at = at.parent {
		n = at.give(r, n)
	}
}

// give gives n back to this account alone. It returns how much the accounts above are still to get:
// less than n if Close has already given them some of it.
func (a *Account) give(r Resource, n int64) int64 {
	if a.used[r].Add(-n) > gone/2 || n <= 0 {
		return n
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	had := min(n, max(0, a.released[r]))
	a.released[r] -= had
	return n - had
}

// refusal is the error for n of a resource that a has too little of.
func (a *Account) refusal(r Resource, n int64, shared bool) *service.Error {
	used, limit := a.Used(r), a.limit[r].Load()
	e := &service.Error{
		Kind: r.kind(), Resource: r.String(), Used: used, Limit: limit,
		Message: fmt.Sprintf("%s of %s has %d of %d in use, and %d more are needed", r, a.name, used, limit, n),
	}
	if shared {
		e.Message += " than one may have of the rest"
	}
	if e.Kind == service.KindOverloaded {
		e.RetryAfter = retryAfter
		e.Message += "; try again later"
	} else {
		e.Message += "; free some of it, or raise the limit"
	}
	if top := a.Holders(r, 3); len(top) > 0 {
		e.Detail = fmt.Sprintf("most of %s is held by %v", r, top)
	}
	return e
}

// Holder is an account and what it holds.
type Holder struct {
	Name string
	Used int64
}

// String is the form for logs.
func (h Holder) String() string { return fmt.Sprintf("%s: %d", h.Name, h.Used) }

// Holders returns the n largest holders of a resource among the accounts right below, in descending
// order. A group is replaced by the accounts below it.
func (a *Account) Holders(r Resource, n int) []Holder {
	all := a.holders(nil, r)
	slices.SortFunc(all, func(x, y Holder) int {
		return cmp.Or(cmp.Compare(y.Used, x.Used), cmp.Compare(x.Name, y.Name))
	})
	return all[:min(n, len(all))]
}

func (a *Account) holders(all []Holder, r Resource) []Holder {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.children {
		used := c.Used(r)
		switch {
		case used <= 0:
		case c.group:
			all = c.holders(all, r)
		default:
			all = append(all, Holder{c.name, used})
		}
	}
	return all
}

// namedHolders bounds the number of holders of each resource in a usage.
const namedHolders = 5

// Usage returns the state of all resources of an account, in the order of the constants. For each
// it names the largest holders, in descending order.
func (a *Account) Usage() []service.ResourceUsage {
	all := make([]service.ResourceUsage, 0, resources)
	for r := range Resource(resources) {
		usage := service.ResourceUsage{Resource: r.String(), Used: a.Used(r), Limit: a.limit[r].Load(),
			Refused: a.denials(r)}
		for _, h := range a.Holders(r, namedHolders) {
			usage.Holders = append(usage.Holders, service.ResourceHolder{Name: h.Name, Used: h.Used})
		}
		all = append(all, usage)
	}
	return all
}

// denials counts the refusals of an account and those below, closed ones included.
func (a *Account) denials(r Resource) uint64 {
	n := a.denied[r].Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.children {
		n += c.denials(r)
	}
	return n
}
