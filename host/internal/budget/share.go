package budget

import (
	"fmt"

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
func (a *Account) TakeShare(r Resource, n int64) error {
	if err := a.Take(r, n); err != nil {
		return err
	}
	if n <= 0 || a.parent == nil || a.Used(r) <= a.parent.Room(r) {
		return nil
	}
	a.Give(r, n)
	full := a.parent.narrowest(r)
	full.denied[r].Add(1)
	e := &service.Error{Kind: r.kind(), Resource: r.String(), Used: full.Used(r), Limit: full.Limit(r)}
	e.Message = fmt.Sprintf("%s of %s has %d of %d in use; with %d more %s would hold more than what is left for others; free some of it, or raise the limit",
		r, full.name, e.Used, e.Limit, n, a.name)
	if most := full.Holders(r, 3); len(most) > 0 {
		e.Detail = fmt.Sprintf("most of %s is held by %v", r, most)
	}
	return e
}

// narrowest is the account, of a and those above, that has least left of a resource.
func (a *Account) narrowest(r Resource) *Account {
	least, room := a, int64(1<<63-1)
	for at := a; at != nil; at = at.parent {
		if limit := at.Limit(r); limit > 0 && limit-at.Used(r) < room {
			least, room = at, limit-at.Used(r)
		}
	}
	return least
}
