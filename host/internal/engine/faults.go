package engine

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

const (
	// maxFaulty bounds the entities of a shard whose failures are remembered, and listed
	// those that a shard names in its status.
	maxFaulty = 256
	listed    = 16
	// maxProblem bounds the text of a failure that is remembered, in bytes.
	maxProblem = 1 << 10
)

// retryBackoff says when an entity that could not be hydrated is tried again, and when a module is
// asked for snapshots again after it has failed over several.
var retryBackoff = lifecycle.Backoff{First: time.Second, Max: 5 * time.Minute}

// faultTable has the entities that a shard's module has failed over: in hydrating them, or in
// encoding their states. It belongs to the shard's goroutine. A failure is the entity's own:
// it says nothing of any other one. When the table is full, the oldest failure is forgotten,
// which costs another attempt.
type faultTable struct {
	all    map[service.Key]*entityFaults
	status atomic.Pointer[service.EntityFaults] // for everybody; replaced with each change
}

// entityFaults is what is wrong with an entity; either may be nil.
type entityFaults struct {
	hydration, snapshot *failure
}

// failure is the last one of its kind.
type failure struct {
	err    *service.Error
	failed int       // in a row
	since  time.Time // of the first
	next   time.Time // no attempt before; zero for a snapshot
	last   time.Time
	// at is the version that the entity comes to no more, or that has no snapshot. It is the
	// first of several, up to until, if it is not known which event is to blame.
	at, until service.Version
	event     service.Type     // of that version, if it is known
	position  service.Position // likewise
}

// latest is when an entity has failed last.
func (a *entityFaults) latest() time.Time {
	var t time.Time
	for _, f := range [...]*failure{a.hydration, a.snapshot} {
		if f != nil && f.last.After(t) {
			t = f.last
		}
	}
	return t
}

// refuses is why an entity is not hydrated now; nil if it may be tried.
func (a *faultTable) refuses(key service.Key) *service.Error {
	x := a.all[key]
	if x == nil || x.hydration == nil {
		return nil
	}
	wait := time.Until(x.hydration.next)
	if wait <= 0 {
		return nil
	}
	err := *x.hydration.err
	err.Fuel, err.RetryAfter = 0, wait
	return &err
}

// suspects are the events of an entity that have to be applied one by one, as it is not known
// which of them is to blame.
func (a *faultTable) suspects(key service.Key) (first, last service.Version) {
	if x := a.all[key]; x != nil && x.hydration != nil && x.hydration.at < x.hydration.until {
		return x.hydration.at, x.hydration.until
	}
	return 0, 0
}

// noSnapshot is why an entity has no snapshot of a version; nil if it may be asked for one.
// Where nobody needs it, it is asked again when it has come twice as far.
func (a *faultTable) noSnapshot(key service.Key, version service.Version, needed bool) *service.Error {
	x := a.all[key]
	if x == nil || x.snapshot == nil {
		return nil
	}
	if f := x.snapshot; version == f.at || !needed && version < 2*f.at {
		return f.err
	}
	return nil
}

// hydrationFailed remembers a failed hydration that took so long, and says when the next one may be.
func (a *faultTable) hydrationFailed(key service.Key, f failure, took time.Duration) *failure {
	x := a.entry(key)
	f.begin(x.hydration)
	f.next = f.last.Add(retryBackoff.Wait(f.failed, took))
	x.hydration = &f
	a.changed()
	return &f
}

// snapshotFailed remembers that a state could not be encoded.
func (a *faultTable) snapshotFailed(key service.Key, f failure) {
	x := a.entry(key)
	f.begin(x.snapshot)
	x.snapshot = &f
	a.changed()
}

// begin counts a failure after the last one of its kind.
func (f *failure) begin(last *failure) {
	f.last, f.failed = time.Now(), 1
	f.since = f.last
	if last != nil {
		f.failed, f.since = last.failed+1, last.since
	}
	if len(f.err.Message) > maxProblem {
		own := *f.err
		own.Message = string([]rune(own.Message)[:maxProblem/4]) + "…"
		f.err = &own
	}
}

// hydrated forgets that an entity could not be hydrated, and kept that its state could not be encoded.
func (a *faultTable) hydrated(key service.Key) {
	if x := a.all[key]; x != nil && x.hydration != nil {
		x.hydration = nil
		a.dropIfEmpty(key, x)
	}
}

func (a *faultTable) kept(key service.Key) {
	if x := a.all[key]; x != nil && x.snapshot != nil {
		x.snapshot = nil
		a.dropIfEmpty(key, x)
	}
}

func (a *faultTable) dropIfEmpty(key service.Key, x *entityFaults) {
	if *x == (entityFaults{}) {
		delete(a.all, key)
	}
	a.changed()
}

// entry is the entity's, made if there is none.
func (a *faultTable) entry(key service.Key) *entityFaults {
	if x := a.all[key]; x != nil {
		return x
	}
	if a.all == nil {
		a.all = map[service.Key]*entityFaults{}
	}
	if len(a.all) >= maxFaulty {
		var oldest service.Key
		for k, x := range a.all {
			if oldest == "" || x.latest().Before(a.all[oldest].latest()) {
				oldest = k
			}
		}
		delete(a.all, oldest)
	}
	x := &entityFaults{}
	a.all[key] = x
	return x
}

// changed publishes the list: the latest failures first.
func (a *faultTable) changed() {
	keys := make([]service.Key, 0, len(a.all))
	for key := range a.all {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(x, y service.Key) int {
		return cmp.Or(a.all[y].latest().Compare(a.all[x].latest()), cmp.Compare(x, y))
	})
	out := &service.EntityFaults{Count: len(keys)}
	for _, key := range keys[:min(len(keys), listed)] {
		x := a.all[key]
		if x.hydration != nil {
			out.Latest = append(out.Latest, x.hydration.entry(key, service.CannotHydrate))
		}
		if x.snapshot != nil {
			out.Latest = append(out.Latest, x.snapshot.entry(key, service.CannotSnapshot))
		}
	}
	a.status.Store(out)
}

func (f *failure) entry(key service.Key, cannot string) service.EntityFault {
	return service.EntityFault{
		Key: key, Cannot: cannot, Problem: f.err.Error(), Version: f.at, Event: f.event, Position: f.position,
		Since: f.since, Failed: f.failed, NextAttempt: f.next,
	}
}

// permanent reports whether an entity that has failed so once will probably do so again. What is
// missing for a moment, or not of the entity's doing, is not remembered of it.
func permanent(kind service.Kind) bool {
	switch kind {
	case service.KindFault, service.KindTrap, service.KindGuestDeadline, service.KindGuestMemory, service.KindGuestExit,
		service.KindGuestStack, service.KindGuestFuel, service.KindProtocol, service.KindOutcomeTooLarge, service.KindInternal,
		service.KindDamaged:
		return true
	}
	return false
}
