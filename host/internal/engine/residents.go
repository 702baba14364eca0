package engine

import (
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// entity is one entity that is resident in the guest.
type entity struct {
	key     service.Key
	slot    uint32
	version service.Version // includes everything appended to the log, durable or not
	// snapshot is the version of the latest usable snapshot; 0 if there is none.
	snapshot service.Version
	renew    bool // the present snapshot is unusable, so another is taken as soon as possible

	newer, older *entity // in the order of use
}

// residents is the table of the entities in a guest, by key and in the order of their last use.
// Slots are dense numbers. The slot of a removed entity is retired: the guest still holds the old
// entity there. It forgets that when another entity is opened in the slot, or when it is told to
// drop it.
//
// Each entity takes some bytes of the host's memory, which are drawn from the budget, even for
// keys without any event. They are drawn in larger amounts.
type residents struct {
	max     int // entities
	account *budget.Account
	taken   int64 // bytes drawn from the account
	used    int64 // bytes of taken that are in use
	held    int   // places reserved for entities that are being hydrated
	byKey   map[service.Key]*entity
	use     entity // head of a ring: use.older is the most recently used, use.newer the least
	free    []uint32
	retired []uint32
	next    uint32 // this slot and all above were never used
}

// entityBytes is the size of an entity without its key: the struct, and its entries in the map and
// in the lists of slots.
const entityBytes = 192

// takeAtOnce is how many bytes are drawn from the account at once, if it has plenty.
const takeAtOnce = 64 << 10

func sizeOf(key service.Key) int64 { return entityBytes + int64(len(key)) }

func newResidents(maxEntities int, account *budget.Account) *residents {
	r := &residents{max: maxEntities, account: account}
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

// reserve makes sure that there are bytes for another entity. If it fails, the caller may remove
// an entity and try again.
func (r *residents) reserve(key service.Key) error {
	need := r.used + sizeOf(key) - r.taken
	if need <= 0 {
		return nil
	}
	take := max(need, takeAtOnce)
	if take > r.account.Room(budget.SandboxBytes)/2 { // leave the rest to others
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

// add enters an entity that has just become resident. Its bytes were reserved before.
func (r *residents) add(key service.Key, slot uint32, version service.Version) *entity {
	e := &entity{key: key, slot: slot, version: version}
	r.byKey[key] = e
	r.used += sizeOf(key)
	r.link(e)
	return e
}

// hold reserves the place of an entity that is being hydrated; its bytes were reserved before.
// give gives the place back.
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

// full reports whether there is no place for another entity.
func (r *residents) full() bool { return len(r.byKey)+r.held >= r.max }

// takeSlot returns a slot for the next entity, which is not yet in the table.
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

// retire gives back a slot that no entity of the table has.
func (r *residents) retire(slot uint32) { r.retired = append(r.retired, slot) }

// dropped frees the retired slots. The guest has just dropped them.
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
