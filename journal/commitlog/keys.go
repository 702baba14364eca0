package commitlog

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// Indexed is the position up to which the index has all events of a log, which a
// [KeyReader] can read. It never decreases, and it is 0 if the log is damaged.
func (j *Journal) Indexed(log journal.LogName) journal.Position {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	s := j.overlay.logs[log]
	if s == nil || j.overlay.damaged[log] != nil {
		return 0
	}
	return s.indexed
}

// KeyReader reads the events of some entities of a log in the order of their
// positions. It reads them from the index, so it costs nothing for what others have in the
// log. Between two calls it holds some bytes for each entity. One goroutine at a time uses it.
type KeyReader struct {
	journal *Journal
	log     journal.LogName
	at      journal.Position // for which keys are right
	keys    []keyPlace
}

// keyPlace is how far a reader has come with one entity.
type keyPlace struct {
	key string
	// next is the first version whose event is above the reader's place, if exact is set.
	// Else that is not below next.
	next  journal.Version
	exact bool
	// position is that of version next; 0 if it is not known, or not in the index yet.
	position journal.Position
	held     []journal.Event // from next on, read in advance; of one call only
}

// Bounds of what a KeyReader reads in advance, so that entities whose events take turns
// in the log do not need a scan for each event.
const (
	keysAheadBytes  = 256 << 10
	keysAheadEvents = 32
)

// ReadKeys makes a reader of the events of some entities, none of which is named twice.
func (j *Journal) ReadKeys(log journal.LogName, keys []string) *KeyReader {
	r := &KeyReader{journal: j, log: log, keys: make([]keyPlace, len(keys))}
	for i, key := range keys {
		r.keys[i].key = key
	}
	return r
}

// Read yields the events of the reader's entities with a position above after, in order,
// at most limit of them if limit is above 0, as far as the log is indexed; see
// [Journal.Indexed]. It returns the position up to which all were yielded; that there is
// nothing up to the end of the index is also a result. It is fast if after is what the
// last call returned. The rules of yield, and of what a retention has deleted, are those of
// [Journal.Read], but that damage is an error of the index, and not of the log.
//
// more, if not nil, is asked between look-ups that yield nothing; false ends the call early.
// An event for which yield returns an error was not yielded: the place that comes with the
// error is before it.
func (r *KeyReader) Read(
	ctx context.Context, after journal.Position, limit int, more func() bool, yield func(*journal.Event) error,
) (journal.Position, error) {
	j := r.journal
	if first := j.First(r.log); after == 0 {
		after = first - 1
	} else if after+1 < first {
		return after, trimmedLog(r.log, first)
	}
	through := j.Indexed(r.log)
	if after >= through {
		return after, nil
	}
	r.move(after)
	p := keyPass{KeyReader: r, ctx: ctx, through: through, limit: limit, more: more, yield: yield}
	err := p.run()
	for i := range r.keys {
		r.keys[i].held = nil
	}
	// What a retention has taken away meanwhile was not seen.
	if first := j.First(r.log); after+1 < first {
		err = trimmedLog(r.log, first)
	} else if err == nil {
		return r.at, p.stopped
	}
	r.forget(after)
	return after, stored.ReadError("read", r.log, err)
}

// move goes to another place.
func (r *KeyReader) move(to journal.Position) {
	switch {
	case to < r.at:
		r.forget(to)
	case to > r.at:
		for i := range r.keys {
			k := &r.keys[i]
			k.exact = k.exact && k.position > to
		}
	}
	r.at = to
}

// forget gives up all that is known.
func (r *KeyReader) forget(at journal.Position) {
	r.at = at
	for i := range r.keys {
		r.keys[i] = keyPlace{key: r.keys[i].key}
	}
}

// keyPass is one call of Read.
type keyPass struct {
	*KeyReader
	ctx     context.Context
	through journal.Position
	limit   int
	more    func() bool
	yield   func(*journal.Event) error
	stopped error // of yield, which goes back as it is

	count int
	ahead int // bytes that are held
	texts format.Texts
}

func (p *keyPass) run() error {
	for i := range p.keys {
		k := &p.keys[i]
		if k.exact && k.position > 0 {
			continue
		}
		if i > 0 && p.more != nil && !p.more() {
			return nil // what was found is kept, the place stays
		}
		if err := p.find(k); err != nil {
			return err
		}
	}
	for p.limit <= 0 || p.count < p.limit {
		k, second := p.least()
		if k == nil {
			p.at = p.through
			return nil
		}
		if err := p.take(k, second); err != nil {
			return err
		}
		if p.stopped != nil {
			return nil
		}
	}
	return nil
}

// least finds the entity with the next event, and where the first one of the others is.
func (p *keyPass) least() (k *keyPlace, second journal.Position) {
	second = p.through + 1
	for i := range p.keys {
		switch x := &p.keys[i]; {
		case x.position == 0 || x.position > p.through:
		case k == nil:
			k = x
		case x.position < k.position:
			k, second = x, k.position
		case x.position < second:
			second = x.position
		}
	}
	return k, second
}

// find makes an entity's place exact.
func (p *keyPass) find(k *keyPlace) error {
	if k.exact {
		return p.look(k)
	}
	floor, _, err := p.journal.floor(p.ctx, p.log, k.key)
	if err != nil {
		return err
	}
	low := max(k.next, floor.Floor+1, 1)
	last, err := p.lastIndexed(k.key)
	if err != nil {
		return err
	}
	// The first version above the place is one of low to high; high is above the last.
	high, position := max(last+1, low), journal.Position(0)
	for low < high {
		v := low + (high-low)/2
		if k.next > 0 && low == k.next {
			v = low // the likely one
		}
		at, err := p.positionOf(k, v)
		switch {
		case err != nil:
			return err
		case at == 0:
			return gap("read", p.log, k.key, v-1, v+1)
		case at > p.at:
			high, position = v, at
		default:
			low = v + 1
		}
	}
	k.next, k.position, k.exact = low, position, true
	return nil
}

// look finds out whether the index has an entity's next event by now.
func (p *keyPass) look(k *keyPlace) error {
	if err := p.journal.reads.enter("read", p.log); err != nil {
		return err
	}
	defer p.journal.reads.leave()
	prefix := format.EntityPrefix(p.log, k.key)
	err := p.journal.storage.Index.Scan(p.ctx, prefix, format.EntityKey(prefix, k.next), func(key, value []byte) error {
		var e journal.Event
		switch v, ok := format.EntityVersion(prefix, key); {
		case !ok || !format.DecodeIndexEvent(value, &e, &p.texts):
			return p.damaged(k, k.next)
		case v != k.next || e.Position <= p.at:
			return gap("read", p.log, k.key, k.next-1, v)
		}
		k.position = e.Position
		return stored.ErrStop
	})
	if errors.Is(err, stored.ErrStop) {
		return nil
	}
	return err
}

// lastIndexed is the last version of an entity in the index, 0 if there is none.
func (p *keyPass) lastIndexed(key string) (journal.Version, error) {
	if err := p.journal.reads.enter("read", p.log); err != nil {
		return 0, err
	}
	defer p.journal.reads.leave()
	prefix := format.EntityPrefix(p.log, key)
	last, ok, err := p.journal.storage.Index.Last(p.ctx, prefix)
	if err != nil || !ok {
		return 0, err
	}
	v, ok := format.EntityVersion(prefix, last)
	if !ok {
		return 0, journal.Errorf(journal.KindCorrupt, "read", p.log, "the index has a malformed key for entity %q; "+
			"rebuild the index",
			key)
	}
	return v, nil
}

// positionOf is the position of an entity's version, 0 if the index does not have it.
func (p *keyPass) positionOf(k *keyPlace, v journal.Version) (journal.Position, error) {
	if err := p.journal.reads.enter("read", p.log); err != nil {
		return 0, err
	}
	defer p.journal.reads.leave()
	value, ok, err := p.journal.storage.Index.Get(p.ctx, format.EntityKey(format.EntityPrefix(p.log, k.key), v))
	if err != nil || !ok {
		return 0, err
	}
	var e journal.Event
	if !format.DecodeIndexEvent(value, &e, &p.texts) || e.Position == 0 {
		return 0, p.damaged(k, v)
	}
	return e.Position, nil
}

func (p *keyPass) damaged(k *keyPlace, v journal.Version) error {
	return journal.Errorf(journal.KindCorrupt, "read", p.log, "the index entry of entity %q for version %d is "+
		"damaged; rebuild the index", k.key, v)
}

// take yields the events of an entity before the position second: those that are held, or, if there are none, those of
// a scan, which holds some of the later ones for the next time.
func (p *keyPass) take(k *keyPlace, second journal.Position) error {
	if len(k.held) > 0 {
		for len(k.held) > 0 && k.position < second && p.give(k, &k.held[0]) {
			p.ahead -= eventBytes(&k.held[0])
			k.held[0] = journal.Event{}
			k.held = k.held[1:]
			if len(k.held) > 0 {
				k.position = k.held[0].Position
			}
			if p.full() {
				break
			}
		}
		if len(k.held) > 0 || p.stopped != nil {
			return nil
		}
		k.position = 0 // until somebody looks
		if p.full() {
			return nil
		}
		return p.find(k)
	}
	if err := p.journal.reads.enter("read", p.log); err != nil {
		return err
	}
	defer p.journal.reads.leave()
	prefix := format.EntityPrefix(p.log, k.key)
	first := k.next
	at := first - 1 // the version before
	done := true    // with all that there is
	err := p.journal.storage.Index.Scan(p.ctx, prefix, format.EntityKey(prefix, k.next), func(key, value []byte) error {
		v, ok := format.EntityVersion(prefix, key)
		e := journal.Event{Log: p.log, Key: k.key, Version: v}
		if !ok || !format.DecodeIndexEvent(value, &e, &p.texts) {
			return p.damaged(k, at+1)
		}
		if v != at+1 || e.Position <= p.at {
			return gap("read", p.log, k.key, at, v)
		}
		at = v
		if len(k.held) == 0 {
			k.position = e.Position
			if e.Position < second {
				if !p.give(k, &e) || p.full() {
					done = p.stopped == nil
					return stored.ErrStop
				}
				return nil
			}
		}
		if done = false; e.Position > p.through || !p.hold(k, &e) {
			return stored.ErrStop
		}
		return nil
	})
	if errors.Is(err, stored.ErrStop) {
		err = nil
	}
	if err == nil && at < first {
		return gap("read", p.log, k.key, at, first)
	}
	if err == nil && done {
		k.position = 0 // until somebody looks
	}
	return err
}

func (p *keyPass) full() bool { return p.limit > 0 && p.count >= p.limit }

// give yields an event and moves past it; false if it was not taken.
func (p *keyPass) give(k *keyPlace, e *journal.Event) bool {
	if p.stopped = p.yield(e); p.stopped != nil {
		p.at = e.Position - 1
		return false
	}
	p.count++
	p.at = e.Position
	k.next = e.Version + 1
	return true
}

// hold keeps an event for later, if there is room.
func (p *keyPass) hold(k *keyPlace, e *journal.Event) bool {
	size := eventBytes(e)
	most := keysAheadEvents
	if p.limit > 0 {
		most = min(most, 2*p.limit/len(p.keys)+1)
	}
	if len(k.held) >= most || p.ahead+size > keysAheadBytes {
		return false
	}
	own := *e
	own.Data, own.Metadata = format.Clone(e.Data), format.Clone(e.Metadata)
	k.held = append(k.held, own)
	p.ahead += size
	return true
}

func eventBytes(e *journal.Event) int {
	return 256 + len(e.Data) + len(e.Metadata) + len(e.CommandID)
}
