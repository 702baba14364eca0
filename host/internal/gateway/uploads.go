package gateway

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// uploads bounds the modules on their way in: what is held of their bodies, in bytes,
// and how many are verified and compiled at a time. A body takes bytes as they come,
// and a place when all of it is there; so one that trickles holds nothing but what it
// has sent. Small modules have bounds of their own: large ones leave them room.
type uploads struct {
	smallBytes   int64 // up to which a module is small
	small, large uploadClass
}

// uploadClass is what modules of one size share.
type uploadClass struct {
	bytes *budget.Account
	work  chan struct{} // one is taken by each module at work
}

// uploadPart is the part of the bytes in flight that uploads may hold together.
const uploadPart = 2

// uploadRoom is what the largest upload of a size holds: the buffer that it is copied
// into when it has grown, and the one before; see nextCapacity.
func uploadRoom(size int64) int64 { return size + 1 + size/2 + 1 }

// smallUploads is how many small modules there may be for each large one.
const smallUploads = 4

func newUploads(root *budget.Account, o Options) *uploads {
	all := root.Group("uploads", budget.Limits{budget.FlightBytes: root.Limit(budget.FlightBytes) / uploadPart})
	class := func(name string, most int, size int64) uploadClass {
		return uploadClass{
			bytes: all.Child(name, budget.Limits{budget.FlightBytes: int64(most) * uploadRoom(size)}),
			work:  make(chan struct{}, most),
		}
	}
	return &uploads{
		smallBytes: o.SmallModule,
		small:      class("uploads of small modules", smallUploads*o.Uploads, min(o.SmallModule, o.ModuleBytes)),
		large:      class("uploads of large modules", o.Uploads, o.ModuleBytes),
	}
}

// upload is one module on its way in. It is its handler's alone.
type upload struct {
	all  *uploads
	of   *uploadClass // whose bytes it holds
	held int64
	at   *uploadClass // in whose place it is at work; nil: in none
}

func (u *uploads) begin() *upload { return &upload{all: u, of: &u.small} }

// class is where a body of that size belongs. One byte more than is small is that by
// which the end of a body is found.
func (u *uploads) class(size int64) *uploadClass {
	if size <= u.smallBytes {
		return &u.small
	}
	return &u.large
}

// hold takes the bytes of a buffer that will take the place of the last one.
func (u *upload) hold(capacity int64) (copied func(), err error) {
	from, had := u.of, u.held
	to := u.all.class(capacity - 1)
	if err := to.bytes.Take(budget.FlightBytes, capacity); err != nil {
		return nil, err
	}
	u.of, u.held = to, capacity
	return func() { from.bytes.Give(budget.FlightBytes, had) }, nil
}

// work takes a place for a module of that size, which is all there. A place is not
// waited for.
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
