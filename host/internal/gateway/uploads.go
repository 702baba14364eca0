package gateway

import (
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// uploads bounds the modules on their way in: the bytes of their bodies, and how many are verified and
// compiled at a time. A body takes bytes as they arrive, and a place when it is complete; so a slow one holds
// only what it has sent. Small modules have their own bounds, so that large ones leave room for them.
type uploads struct {
	smallBytes   int64 // maximum size of a small module
	small, large uploadClass
}

// uploadClass is shared by the modules of one class of sizes.
type uploadClass struct {
	bytes *budget.Account
	work  chan struct{} // each module at work takes one
}

// uploadPart is the part of the bytes in flight that all uploads together may hold.
const uploadPart = 2

// uploadRoom is the maximum that an upload of a size holds: while the buffer grows, the old one and the new
// one; see nextCapacity.
func uploadRoom(size int64) int64 { return size + 1 + size/2 + 1 }

// smallUploads is how many small modules there may be for each large one.
const smallUploads = 4

func newUploads(root *budget.Account, o Options) *uploads {
	all := root.Group("uploads", budget.Limits{budget.FlightBytes: root.Limit(budget.FlightBytes) / uploadPart})
	class := func(name string, limit int, size int64) uploadClass {
		return uploadClass{
			bytes: all.Child(name, budget.Limits{budget.FlightBytes: int64(limit) * uploadRoom(size)}),
			work:  make(chan struct{}, limit),
		}
	}
	return &uploads{
		smallBytes: o.SmallModule,
		small:      class("uploads of small modules", smallUploads*o.Uploads, min(o.SmallModule, o.ModuleBytes)),
		large:      class("uploads of large modules", o.Uploads, o.ModuleBytes),
	}
}

// upload is one module on its way in. Only its handler uses it.
type upload struct {
	all  *uploads
	of   *uploadClass // the class whose bytes it holds
	held int64
	at   *uploadClass // the class in which it has a place; nil: none
}

func (u *uploads) begin() *upload { return &upload{all: u, of: &u.small} }

// class is the class of a body's size. A body of a small module may need one byte more than SmallModule,
// which detects its end.
func (u *uploads) class(size int64) *uploadClass {
	if size <= u.smallBytes {
		return &u.small
	}
	return &u.large
}

// hold takes the bytes of a buffer that will replace the last one.
func (u *upload) hold(capacity int64) (copied func(), err error) {
	from, had := u.of, u.held
	to := u.all.class(capacity - 1)
	if err := to.bytes.Take(budget.FlightBytes, capacity); err != nil {
		return nil, err
	}
	u.of, u.held = to, capacity
	return func() { from.bytes.Give(budget.FlightBytes, had) }, nil
}

// work takes a place for a complete module of that size, without waiting.
func (u *upload) work(size int64) error {
	to := u.all.class(size)
	select {
	case to.work <- struct{}{}:
		u.at = to
		return nil
	default:
	}
	return &service.Error{Kind: service.KindOverloaded, Message: "other modules are being verified and compiled",
		RetryAfter: flight.RetrySoon,
		Resource:   "uploads_at_work", Used: int64(len(to.work)), Limit: int64(cap(to.work))}
}

// end gives everything back.
func (u *upload) end() {
	u.of.bytes.Give(budget.FlightBytes, u.held)
	u.held = 0
	if u.at != nil {
		<-u.at.work
		u.at = nil
	}
}
