package engine

import "github.com/bulkhead-wasm/bulkhead/host/service"

// entity is an entity that is in the guest.
type entity struct {
	key     service.Key
	slot    uint32
	version service.Version // with everything handed to the log, durable or not
	// snapshot is the version of its latest snapshot, 0 if there is none that serves.
	snapshot service.Version

	newer, older *entity // in the order of use
}

// residents is the table of the entities in a guest: by key, and in the order of
// their last use. Slots are dense numbers; those of removed entities are retired, and
// the guest forgets what it has in them when another entity is opened there, or when it
// is told to drop them.
type residents struct {
	most    int
	byKey   map[service.Key]*entity
	use     entity // of a ring: use.older is the most recently used, use.newer the least
	free    []uint32
	retired []uint32
	next    uint32 // slots from here on were never used
}

func newResidents(most int) *residents {
	r := &residents{most: most}
	r.forget()
	return r
}

// forget empties the table. The guest must have forgotten everything, too.
func (r *residents) forget() {
	r.byKey = make(map[service.Key]*entity)
	r.use.newer, r.use.older = &r.use, &r.use
	r.free, r.retired, r.next = r.free[:0], r.retired[:0], 0
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

// add enters an entity that has just been made resident.
func (r *residents) add(key service.Key, slot uint32, version service.Version) *entity {
	e := &entity{key: key, slot: slot, version: version}
	r.byKey[key] = e
	r.link(e)
	return e
}

// remove takes an entity out and retires its slot.
func (r *residents) remove(e *entity) {
	delete(r.byKey, e.key)
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
func (r *residents) full() bool { return len(r.byKey) >= r.most }

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
