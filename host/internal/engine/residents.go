package engine

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// entity is an entity that is in the guest.
type entity struct {
	key     service.Key
	slot    uint32
	version service.Version // with everything handed to the log, durable or not
	// snapshot is the version of its latest snapshot, 0 if there is none that serves.
	snapshot service.Version
	renew    bool // another one is taken as soon as may be, as there is one that does not serve

	newer, older *entity // in the order of use
}

// residents is the table of the entities in a guest: by key, and in the order of
// their last use. Slots are dense numbers; those of removed entities are retired, and
// the guest forgets what it has in them when another entity is opened there, or when it
// is told to drop them.
//
// Each takes some bytes of the host's own, which come from the budget, also those of
// keys that nobody has written to. They are taken some at a time.
type residents struct {
	most    int
	account *budget.Account
	taken   int64 // from the account
	used    int64 // of that
	held    int   // places of entities that are on their way into the guest
	byKey   map[service.Key]*entity
	use     entity // of a ring: use.older is the most recently used, use.newer the least
	free    []uint32
	retired []uint32
	next    uint32 // slots from here on were never used
}

// entityBytes is what an entity takes beside its key: itself, and its places in the
// map and in the lists of slots.
const entityBytes = 192

// takeAtOnce is how much is taken from the account, if there is so much.
const takeAtOnce = 64 << 10

func sizeOf(key service.Key) int64 { return entityBytes + int64(len(key)) }

func newResidents(most int, account *budget.Account) *residents {
	r := &residents{most: most, account: account}
	r.forget()
	return r
}

// forget empties the table. The guest must have forgotten everything, too.
func (r *residents) forget() {
	r.byKey = make(map[service.Key]*entity)
	r.use.newer, r.use.older = &r.use, &r.use
	r.free, r.retired, r.next = r.free[:0], r.retired[:0], 0
	r.account.Give(budget.SandboxBytes, r.taken)
	r.taken, r.used, r.held = 0, 0, 0
}

// reserve makes sure that there are bytes for another entity. If there are none the
// error says so; then it helps to remove one.
func (r *residents) reserve(key service.Key) error {
	need := r.used + sizeOf(key) - r.taken
	if need <= 0 {
		return nil
	}
	take := max(need, takeAtOnce)
	if take > r.account.Room(budget.SandboxBytes)/2 { // the rest is for others
		take = need
	}
	if err := r.account.TakeShare(budget.SandboxBytes, take); err != nil {
		return err
	}
	r.taken += take
	return nil
}

func (r *residents) len() int { return len(r.byKey) }

// get finds an entity and marks it as used.
func (r *residents) get(key service.Key) *entity {
	e := r.byKey[key]
	if e != nil && r.use.older != e {
		r.unlink(e)
		r.link(e)
	}
	return e
}

// add enters an entity that has just been made resident. Its bytes are reserved.
func (r *residents) add(key service.Key, slot uint32, version service.Version) *entity {
	e := &entity{key: key, slot: slot, version: version}
	r.byKey[key] = e
	r.used += sizeOf(key)
	r.link(e)
	return e
}

// hold keeps a place, whose bytes are reserved, for an entity that is on its way into the
// guest; give gives it back.
func (r *residents) hold(key service.Key) {
	r.held++
	r.used += sizeOf(key)
}

func (r *residents) give(key service.Key) {
	r.held--
	r.used -= sizeOf(key)
}

// remove takes an entity out and retires its slot.
func (r *residents) remove(e *entity) {
	delete(r.byKey, e.key)
	r.used -= sizeOf(e.key)
	r.unlink(e)
	r.retired = append(r.retired, e.slot)
}

// oldest is the least recently used entity; nil if there is none.
func (r *residents) oldest() *entity {
	if r.use.newer == &r.use {
		return nil
	}
	return r.use.newer
}

// full reports whether another entity would be one too many.
func (r *residents) full() bool { return len(r.byKey)+r.held >= r.most }

// takeSlot takes the number for the next entity; it is not yet in the table.
func (r *residents) takeSlot() uint32 {
	for _, from := range [...]*[]uint32{&r.retired, &r.free} {
		if n := len(*from); n > 0 {
			slot := (*from)[n-1]
			*from = (*from)[:n-1]
			return slot
		}
	}
	r.next++
	return r.next - 1
}

// retire gives a slot back that no entity of the table has.
func (r *residents) retire(slot uint32) { r.retired = append(r.retired, slot) }

// dropped frees the retired slots.
func (r *residents) dropped() {
	r.free = append(r.free, r.retired...)
	r.retired = r.retired[:0]
}

// link makes e the most recently used.
func (r *residents) link(e *entity) {
	e.newer, e.older = &r.use, r.use.older
	e.older.newer, r.use.older = e, e
}

func (r *residents) unlink(e *entity) {
	e.newer.older, e.older.newer = e.older, e.newer
}
