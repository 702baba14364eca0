package engine

import (
	"cmp"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

const (
	// maxFaulty bounds the entities of a shard whose failures are remembered. listed bounds
	// those that a shard names in its status.
	maxFaulty = 256
	listed    = 16
	// maxProblem bounds the text of a remembered failure, in bytes.
	maxProblem = 1 << 10
)

// retryBackoff is the wait before another attempt: to hydrate an entity that failed, and to ask a
// module for snapshots after several failures.
var retryBackoff = lifecycle.Backoff{First: time.Second, Max: 5 * time.Minute}

// faultTable holds the entities that a shard's module failed over: when it hydrated them, or when
// it encoded their states. The shard's goroutine owns it. A failure concerns one entity only. When
// the table is full, the oldest failure is forgotten, which costs another attempt.
type faultTable struct {
	all    map[service.Key]*entityFaults
	status atomic.Pointer[service.EntityFaults] // for any reader; replaced with each change
	// quarantined are the entities that cannot be hydrated, by key; like status.
	quarantined atomic.Pointer[[]service.EntityFault]
}

// entityFaults are the failures of one entity; each may be nil.
type entityFaults struct {
	hydration, snapshot *failure
}

// failure is the last failure of an entity to hydrate, or to be encoded.
type failure struct {
	err    *service.Error
	failed int       // failures in a row
	since  time.Time // of the first of them
	next   time.Time // earliest next attempt; zero for a snapshot
	last   time.Time // of this failure
	// at is the version that cannot be reached, or that cannot be encoded. If it is not known
	// which event is to blame, it is one of at to until.
	at, until service.Version
	event     service.Type     // type of the event with that version, if known
	position  service.Position // position of that event, if known
}

// latest is the time of the entity's last failure.
func (a *entityFaults) latest() time.Time {
	var t time.Time
	for _, f := range [...]*failure{a.hydration, a.snapshot} {
		if f != nil && f.last.After(t) {
			t = f.last
		}
	}
	return t
}

// refuses returns the error with which an entity is refused now; nil if it may be hydrated.
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

// retry makes the next attempt to hydrate an entity due at once. It reports whether the last one failed.
func (a *faultTable) retry(key service.Key) bool {
	x := a.all[key]
	if x == nil || x.hydration == nil {
		return false
	}
	x.hydration.next = time.Time{}
	return true
}

// suspects returns the range of events that have to be applied one by one, because it is not known
// which of them is to blame; 0, 0 if there are none.
func (a *faultTable) suspects(key service.Key) (first, last service.Version) {
	if x := a.all[key]; x != nil && x.hydration != nil && x.hydration.at < x.hydration.until {
		return x.hydration.at, x.hydration.until
	}
	return 0, 0
}

// noSnapshot returns why an entity must not be asked for a snapshot at a version; nil if it may be.
// If the snapshot is not needed, the entity is asked again when its version has doubled.
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

// hydrationFailed records a failed hydration that took the given time, and sets the next attempt.
func (a *faultTable) hydrationFailed(key service.Key, f failure, took time.Duration) *failure {
	x := a.entry(key)
	f.begin(x.hydration)
	f.next = f.last.Add(retryBackoff.Wait(f.failed, took))
	x.hydration = &f
	a.changed()
	return &f
}

// snapshotFailed records that a state could not be encoded.
func (a *faultTable) snapshotFailed(key service.Key, f failure) {
	x := a.entry(key)
	f.begin(x.snapshot)
	x.snapshot = &f
	a.changed()
}

// begin sets the counts and times of f, which follows the failure last of the same kind, or nil.
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

// hydrated removes the failure to hydrate an entity, and kept the failure to encode it.
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

// entry returns the entity's entry; it adds one if there is none.
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

// changed publishes the status list, the latest failures first.
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
	quarantined := []service.EntityFault{}
	for _, key := range slices.Sorted(maps.Keys(a.all)) {
		if f := a.all[key].hydration; f != nil {
			quarantined = append(quarantined, f.entry(key, service.CannotHydrate))
		}
	}
	out.Quarantined = len(quarantined)
	a.quarantined.Store(&quarantined)
	a.status.Store(out)
}

func (f *failure) entry(key service.Key, cannot string) service.EntityFault {
	return service.EntityFault{
		Key: key, Cannot: cannot, Problem: f.err.Error(), Version: f.at, Event: f.event, Position: f.position,
		Since: f.since, Failed: f.failed, NextAttempt: f.next,
	}
}

// permanent reports whether a failure of this kind is likely to repeat. Only such failures are
// remembered: others are temporary, or not caused by the entity.
func permanent(kind service.Kind) bool {
	switch kind {
	case service.KindFault, service.KindTrap, service.KindGuestDeadline, service.KindGuestMemory, service.KindGuestExit,
		service.KindGuestStack, service.KindGuestFuel, service.KindProtocol, service.KindOutcomeTooLarge,
		service.KindInternal,
		service.KindDamaged:
		return true
	}
	return false
}
