package budget

import (
	"fmt"
	"math"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// TakeShare is [Account.Take] for accounts that share a resource without fixed shares. It also
// refuses what would make the account hold more than what is left for all others together. So one
// account alone can get half of the resource, n accounts that want everything get 1/(n+1) each, and
// an account that holds little always gets something. The account's own limit is not shared.
//
// Concurrent callers may see the same room, so that rule is approximate. The limits are exact.
func (a *Account) TakeShare(r Resource, n int64) error { return a.TakeShareBeside(r, n, 0) }

// TakeShareBeside is [Account.TakeShare] for something that replaces what the account still holds:
// the replaced amount, which the caller gives back later, counts as free.
func (a *Account) TakeShareBeside(r Resource, n, replaced int64) error {
	if err := a.Take(r, n); err != nil {
		return err
	}
	if n <= 0 || a.parent == nil || a.Used(r)-replaced <= free(a.parent.Room(r), replaced) {
		return nil
	}
	a.Give(r, n)
	full := a.parent.tightest(r)
	full.denied[r].Add(1)
	e := &service.Error{Kind: r.kind(), Resource: r.String(), Used: full.Used(r), Limit: full.Limit(r)}
	e.Message = fmt.Sprintf("%s of %s has %d of %d in use; with %d more %s would hold more than what is left for "+
		"others; free some of it, or raise the limit",
		r, full.name, e.Used, e.Limit, n, a.name)
	if top := full.Holders(r, 3); len(top) > 0 {
		e.Detail = fmt.Sprintf("most of %s is held by %v", r, top)
	}
	return e
}

// free returns room + replaced, at most math.MaxInt64.
func free(room, replaced int64) int64 {
	if room > math.MaxInt64-replaced {
		return math.MaxInt64
	}
	return room + replaced
}
