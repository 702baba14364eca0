package budget

import (
	"fmt"
	"math"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// TakeShare is Take for those who share a resource without shares that are fixed: it
// refuses also what would have the account hold more than what would be left for all
// others together. So one alone may hold half of the resource and n that want all of it
// one part in n+1 each, and somebody who holds little always finds something. A limit of
// the account's own is all its own.
//
// What is left may change between two callers that take at the same time; the limits
// hold all the same.
func (a *Account) TakeShare(r Resource, n int64) error { return a.TakeShareBeside(r, n, 0) }

// TakeShareBeside is TakeShare for what takes the place of so much that the account still
// holds, and gives back then: that counts as free.
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
	e.Message = fmt.Sprintf("%s of %s has %d of %d in use; with %d more %s would hold more than what is left for others; free some of it, or raise the limit",
		r, full.name, e.Used, e.Limit, n, a.name)
	if most := full.Holders(r, 3); len(most) > 0 {
		e.Detail = fmt.Sprintf("most of %s is held by %v", r, most)
	}
	return e
}

// free is the sum, or the largest number.
func free(room, replaced int64) int64 {
	if room > math.MaxInt64-replaced {
		return math.MaxInt64
	}
	return room + replaced
}
