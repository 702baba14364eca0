// Package budget bounds what a host holds at one time. It is a tree of accounts:
// the host's at the root, services below it, and connections and sandboxes below
// those. Whoever wants to hold something takes it from the narrowest account that
// it is for, before it exists; that takes it from all accounts above, too. Whoever
// took it gives it back. So no sum of bounded things is without a bound.
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

// Resource is something of which a host has only so much.
type Resource uint8

// The resources that are held and given back.
const (
	// FlightBytes are the bytes of bodies, messages and answers that are in memory
	// on their way in or out.
	FlightBytes Resource = iota
	// Sandboxes are the instances of modules; each takes a few mappings of memory.
	Sandboxes
	// SandboxBytes are the machine code, images, linear memories, call stacks, tables and
	// resident entities of sandboxes.
	SandboxBytes
	// Descriptors are open files and connections.
	Descriptors
	// DiskBytes are the bytes of modules and logs on disk.
	DiskBytes
	// Readers are scans of logs that run at the same time.
	Readers

	resources int = iota
)

var names = [resources]string{"bytes_in_flight", "sandboxes", "sandbox_bytes", "descriptors", "disk_bytes", "readers"}

// String is the stable name of the resource, as clients and metrics see it.
func (r Resource) String() string {
	if int(r) < resources {
		return names[r]
	}
	return fmt.Sprintf("resource %d", uint8(r))
}

// kind says how a refusal looks. What ends by itself is an overload; what stays
// until somebody acts is a quota.
func (r Resource) kind() service.Kind {
	switch r {
	case Sandboxes, SandboxBytes, DiskBytes:
		return service.KindQuota
	}
	return service.KindOverloaded
}

// retryAfter is when to try again if a resource that comes back by itself is used up.
const retryAfter = time.Second

// Limits bound what an account may hold. A resource that is not in it has no bound
// in this account but those of the accounts above.
type Limits map[Resource]int64

// Account is a place in the tree. It is safe for concurrent use.
type Account struct {
	parent *Account
	name   string
	group  bool                    // it only holds others together, and is no holder itself
	used   [resources]atomic.Int64 // about gone once it is closed
	limit  [resources]atomic.Int64 // 0 is none
	share  [resources]Share        // none if it has no parts
	denied [resources]atomic.Uint64

	mu       sync.Mutex // guards what follows, and is held by Set
	children map[*Account]struct{}
	closed   bool
	released [resources]int64 // what Close gave back, but for what was given back since
}

// gone is far below what an account that is open may be said to hold: below half of it an
// account is closed.
const gone = math.MinInt64 / 2

// New makes the account of a host.
func New(l Limits) *Account { return newAccount(nil, "host", l) }

func newAccount(parent *Account, name string, l Limits) *Account {
	a := &Account{parent: parent, name: name}
	for r, n := range l {
		a.limit[r].Store(n)
	}
	return a
}

// Child opens an account below a. name says whose it is, to operators.
func (a *Account) Child(name string, l Limits) *Account {
	c := newAccount(a, name, l)
	a.adopt(c)
	return c
}

// Group opens an account below a for what many have together, such as all
// connections. Holders shows those below it instead of it.
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

// Close takes the account out of the tree. What it still holds is given back to the
// accounts above and returned, so that a test can say what was forgotten. Whoever holds
// something still gives it back later, as always: the accounts above do not get it twice.
// What is taken from a closed account is taken from those above. Its refusals go on to
// count.
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

// close has nothing be set any more; false if the account is closed already.
func (a *Account) close() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.closed
	a.closed = true
	return !was
}

// held ends the account of what it holds, and returns that.
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

// SetLimit changes the bound of a resource. What is held already stays. 0 is no bound.
func (a *Account) SetLimit(r Resource, n int64) { a.limit[r].Store(n) }

// Share is how accounts right below another one share a resource.
type Share struct {
	// Parts is the fairness: no account may come to hold more than the Parts-th part of
	// what is left for all, apart from Reserve. So the share of one shrinks as more is
	// in use, and those that hold much get nothing more.
	Parts int64
	// Small is what any account may hold as long as there is some left at all, and
	// Reserve is what is left for those that hold no more than that.
	Small, Reserve int64
}

// SetShare has the accounts right below share a resource fairly. It is called before
// there are any.
func (a *Account) SetShare(r Resource, s Share) { a.share[r] = s }

// Limit is the bound of a resource in this account; 0 is none.
func (a *Account) Limit(r Resource) int64 { return a.limit[r].Load() }

// Used is what the account and those below hold.
func (a *Account) Used(r Resource) int64 {
	if n := a.used[r].Load(); n > gone/2 {
		return n
	}
	return 0
}

// Room is what may still be taken: the least that this account and those above have
// left, shares included. It is the largest number if nothing bounds it.
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

// part is what a may hold by its parent's share, if that has one.
func (a *Account) part(r Resource) (part int64, shared bool) {
	if a.parent == nil || a.parent.share[r].Parts <= 0 {
		return 0, false
	}
	s := &a.parent.share[r]
	return max(s.Small, (a.parent.Room(r)-s.Reserve)/s.Parts), true
}

// tightest is the account among a and those above that has least left.
func (a *Account) tightest(r Resource) *Account {
	found, least := a, int64(math.MaxInt64)
	for at := a; at != nil; at = at.parent {
		if limit := at.limit[r].Load(); limit > 0 && limit-at.Used(r) < least {
			found, least = at, limit-at.Used(r)
		}
	}
	return found
}

// Take takes n of a resource, or nothing. The error is a *service.Error of kind
// overloaded or quota that says which resource is used up, how much of how much is
// used, and, for the operator, who holds most of it.
func (a *Account) Take(r Resource, n int64) error {
	full, shared := a.take(r, n)
	if full == nil {
		return nil
	}
	full.denied[r].Add(1)
	return full.refusal(r, n, shared)
}

// TryTake is Take for those that do something else if there is not enough. It counts
// no refusal.
func (a *Account) TryTake(r Resource, n int64) bool {
	full, _ := a.take(r, n)
	return full == nil
}

// take returns the account that has not enough, or nil. shared says that it has, but that
// what is left is not for those that hold so much.
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

// undo takes back what was taken from a and the accounts above, up to but without to.
func (a *Account) undo(r Resource, n int64, to *Account) {
	at, rest := a, n
	for ; at != to; at = at.parent {
		rest = at.give(r, rest)
	}
	for ; at != nil && rest != n; at = at.parent { // one was closed meanwhile, and gave them what they had not got
		at.used[r].Add(n - rest)
	}
}

// Give gives back what was taken.
func (a *Account) Give(r Resource, n int64) {
	for at := a; at != nil; at = at.parent {
		n = at.give(r, n)
	}
}

// give gives back to this account alone, and returns how much of it is for those above:
// without what they have got already, when this one was closed.
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

// refusal says what is used up.
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
	if most := a.Holders(r, 3); len(most) > 0 {
		e.Detail = fmt.Sprintf("most of %s is held by %v", r, most)
	}
	return e
}

// Holder is an account and what it holds.
type Holder struct {
	Name string
	Used int64
}

// String is how a log shows a holder.
func (h Holder) String() string { return fmt.Sprintf("%s: %d", h.Name, h.Used) }

// Holders are the accounts right below that hold most of a resource, no more than n,
// the largest first. Instead of a group there are those below it.
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

// namedHolders bounds how many holders of a resource are named.
const namedHolders = 5

// Usage is the state of all resources of an account, in the order of the resources.
// Of each it names those who hold most, the largest first.
func (a *Account) Usage() []service.ResourceUsage {
	all := make([]service.ResourceUsage, 0, resources)
	for r := range Resource(resources) {
		usage := service.ResourceUsage{Resource: r.String(), Used: a.Used(r), Limit: a.limit[r].Load(), Refused: a.denials(r)}
		for _, h := range a.Holders(r, namedHolders) {
			usage.Holders = append(usage.Holders, service.ResourceHolder{Name: h.Name, Used: h.Used})
		}
		all = append(all, usage)
	}
	return all
}

// denials are the refusals of an account and of those below, closed ones included.
func (a *Account) denials(r Resource) uint64 {
	n := a.denied[r].Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.children {
		n += c.denials(r)
	}
	return n
}
