package commitlog

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// overlay is what was handed in and is not in the index yet, and what is known of each log. Its mutex guards all of it,
// the queue, the cache of versions and the queue of snapshots included; no I/O is done under it.
type overlay struct {
	opt     *Options
	damaged damages // logs, as Open found them; constant after it

	mu        sync.Mutex
	logs      map[journal.LogName]*logState
	queue     queue
	flying    int          // commits handed in, not yet passed to the indexer
	bases     []*baseBatch // handed in likewise
	recount   []*logState  // whose size changed otherwise than by a group, for the indexer
	wanted    int          // those who wait for the index
	versions  versionCache // of entities that have nothing here
	snapshots snapshotQueue
	failure   *journal.Error // why the journal failed; nil while it did not
	closing   bool
	stats     journal.Stats

	failed    chan struct{} // closed with failure
	wake      chan struct{} // capacity 1: there is something in a queue, or closing
	indexWake chan struct{} // capacity 1: there is something for the indexer besides groups
}

func newOverlay(o *Options) *overlay {
	return &overlay{
		opt: o, damaged: damages{}, logs: map[journal.LogName]*logState{}, queue: newQueue(o),
		versions: newVersionCache(o.VersionCache), snapshots: newSnapshotQueue(o.MaxPendingSnapshotBytes),
		failed: make(chan struct{}), wake: make(chan struct{}, 1), indexWake: make(chan struct{}, 1),
	}
}

// log returns the state of a log and creates it on first use. The caller holds mu.
func (o *overlay) log(name journal.LogName) *logState {
	s := o.logs[name]
	if s == nil {
		s = newLog(name)
		o.logs[name] = s
	}
	return s
}

// refusal returns why nothing is accepted now, or nil. The caller holds mu.
func (o *overlay) refusal(log journal.LogName) error {
	switch {
	case o.failure != nil:
		return &journal.Error{Op: "append", Log: log, Kind: journal.KindFailed, Err: o.failure}
	case o.closing:
		return journal.Errorf(journal.KindClosed, "append", log, "the journal was closed")
	case o.damaged[log] != nil:
		return &journal.Error{Op: "append", Log: log, Kind: journal.KindCorrupt, Err: o.damaged[log]}
	}
	return nil
}

// waitForRoom blocks until size bytes may be handed in. The caller holds mu, which is released while waiting.
func (o *overlay) waitForRoom(ctx context.Context, log journal.LogName, size int64) error {
	for {
		if err := o.refusal(log); err != nil {
			return err
		}
		var queue *logQueue
		if s := o.logs[log]; s != nil {
			queue = &s.queue
		}
		if o.queue.hasRoom(queue, size) {
			return nil
		}
		room := o.queue.room
		o.stats.Stalls++
		start := time.Now()
		o.mu.Unlock()
		var err error
		select {
		case <-room:
		case <-ctx.Done():
			err = &journal.Error{Op: "append", Log: log, Kind: journal.KindCanceled, Err: ctx.Err()}
		}
		o.mu.Lock()
		o.stats.StallTime += time.Since(start)
		if err != nil {
			return err
		}
	}
}

// hold puts p into the overlay. The caller holds mu.
func (o *overlay) hold(s *logState, p *pending) {
	s.entered++
	key := p.commit.Command.Key
	e := s.entities[key]
	if e == nil {
		e = &entity{id: o.versions.key(s.name, key)}
		s.entities[key] = e
		o.versions.drop(e.id)
	}
	e.version = p.commit.Expected + journal.Version(len(p.commit.Events))
	e.commits = append(e.commits, p)
	e.waiting++
	s.ids[p.commit.Command.ID] = p
	delete(s.unused, p.commit.Command.ID)
	p.log, p.entity = s, e
}

// release takes p out of the overlay once it is in the index, or void. The caller
// holds mu.
func (o *overlay) release(p *pending) {
	p.log.left++
	key := p.commit.Command.Key
	e := p.entity
	// Commits leave in order, except void ones that come after others still held.
	if e.commits[0] == p {
		e.commits[0] = nil
		e.commits = e.commits[1:]
	} else if i := slices.Index(e.commits, p); i > 0 {
		e.commits = slices.Delete(e.commits, i, i+1)
	}
	if len(e.commits) == 0 && p.log.entities[key] == e {
		delete(p.log.entities, key)
		if p.durable {
			o.versions.put(e.id, e.version)
		}
	}
	delete(p.log.ids, p.commit.Command.ID)
	o.releaseSnapshot(p)
	o.queue.take(&p.log.queue, -1, -int64(p.size))
}

// knownVersion is an entity's version as memory knows it. The caller holds mu.
func (o *overlay) knownVersion(s *logState, key string) (journal.Version, bool) {
	if e := s.entities[key]; e != nil {
		return e.version, true
	}
	return o.versions.get(o.versions.key(s.name, key))
}

// eventsOf returns the events of an entity that are not in the index yet, and how often
// that had been updated then. s is nil if there is no such log.
func (o *overlay) eventsOf(log journal.LogName, key string) (held []journal.Event, seen uint64, s *logState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s = o.logs[log]; s == nil {
		return nil, 0, nil
	}
	if e := s.entities[key]; e != nil {
		for _, p := range e.commits {
			for i := range p.commit.Events {
				held = append(held, p.event(i))
			}
		}
	}
	return held, s.indexing, s
}

// moved reports whether something of an entity may have gone into the index since
// overlay was asked, or is about to.
func (o *overlay) moved(s *logState, key string, seen uint64) bool {
	if s == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return s.indexing != seen || s.entities[key] != nil
}

// nothingAbove reports whether memory knows that an entity has come to no version
// above after, and its version.
func (o *overlay) nothingAbove(log journal.LogName, key string, after journal.Version) (journal.Version, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.logs[log]
	if s == nil {
		return 0, false
	}
	v, known := o.knownVersion(s, key)
	return v, known && v <= after
}

// cutOf is the cut of a log's latest retention; zero if there was none.
func (o *overlay) cutOf(log journal.LogName) format.Cut {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.logs[log]; s != nil {
		return s.trimmed
	}
	return format.Cut{}
}

// refusesReceipt says why no state of a log can have a receipt. The caller holds mu.
func (o *overlay) refusesReceipt(log journal.LogName) error {
	switch {
	case o.failure != nil:
		return &journal.Error{Op: "settle", Log: log, Kind: journal.KindFailed, Err: o.failure}
	case o.damaged[log] != nil:
		return &journal.Error{Op: "settle", Log: log, Kind: journal.KindCorrupt, Err: o.damaged[log]}
	}
	return nil
}

// awaitIndex waits until the index has all commits of a log that were handed in, but for
// those that are void. Meanwhile the index does not wait for others to come along.
func (o *overlay) awaitIndex(ctx context.Context, log journal.LogName) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted++
	defer func() { o.wanted-- }()
	s := o.logs[log]
	var entered uint64
	if s != nil {
		entered = s.entered
	}
	for s != nil && s.left < entered {
		room := o.queue.room
		o.mu.Unlock()
		var err *journal.Error
		select {
		case <-room: // which every update of the index makes
		case <-o.failed:
			err = &journal.Error{Op: "index", Log: log, Kind: journal.KindFailed, Err: o.err()}
		case <-ctx.Done():
			err = &journal.Error{Op: "index", Log: log, Kind: journal.KindCanceled, Err: ctx.Err()}
		}
		if o.mu.Lock(); err != nil {
			return err
		}
	}
	return nil
}

// takeGroup takes what fits into one group. more is false if there will never be anything again.
func (o *overlay) takeGroup() (g *group, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.queue.queued == 0 && len(o.bases) == 0 {
		return nil, !o.closing
	}
	g = &group{commits: make([]*pending, 0, min(o.queue.queued, o.opt.MaxGroupCommits)), bases: o.bases}
	o.bases = nil
	if o.failure != nil {
		g.err = o.failure
	}
	o.queue.fill(g)
	return g, true
}

// fail ends the journal: the outcome of the group is unknown, all later groups are void.
func (o *overlay) fail(g *group, err *journal.Error) {
	o.mu.Lock()
	if o.failure == nil {
		o.failure = err
		close(o.failed)
	}
	o.queue.makeRoom() // who waits for some shall see the failure
	o.mu.Unlock()
	if g != nil {
		g.err = err
		o.void(g)
	}
}

// void removes commits that will not get a receipt from the overlay, so that readers see what is on disk.
func (o *overlay) void(g *group) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range g.commits {
		p.log.size.writing -= int64(p.size)
		p.entity.waiting--
		p.entity.version = min(p.entity.version, p.commit.Expected)
		p.log.indexing++ // who saw it in the overlay must not take it for indexed
		o.release(p)
	}
	o.queue.makeRoom()
}

// releaseIndexed takes what g brought to the index out of the overlay: thousands of commits may
// come with one update, so that the lock is given up now and then, or all who append
// would stand still meanwhile.
func (o *overlay) releaseIndexed(g *group) {
	const atOnce = 64
	for commits := range slices.Chunk(g.commits, atOnce) {
		o.mu.Lock()
		for _, p := range commits {
			p.log.indexing++
			p.log.indexed = p.first + journal.Position(len(p.commit.Events)) - 1
			o.release(p)
		}
		o.stats.IndexLag -= len(commits)
		o.queue.makeRoom()
		o.mu.Unlock()
	}
	for _, b := range g.bases {
		b.done <- nil
	}
}

// holdSnapshot puts h where it waits. The caller holds mu and has made sure that the
// entity has come to its version.
func (o *overlay) holdSnapshot(h *held) bool {
	if !o.snapshots.add(h) {
		return false
	}
	if e := o.logs[h.id.log].entities[h.id.key]; e != nil && e.commits[0].commit.Expected < h.snapshot.Version {
		for _, p := range e.commits {
			if p.commit.Expected+journal.Version(len(p.commit.Events)) >= h.snapshot.Version {
				if p.snapshot != nil {
					o.snapshots.letGo(p.snapshot)
				}
				p.snapshot = h
				return true
			}
		}
	}
	o.ready(h)
	return true
}

// ready hands h to the indexer. The caller holds mu.
func (o *overlay) ready(h *held) {
	o.snapshots.ready = append(o.snapshots.ready, h)
	o.wakeIndexer()
}

// releaseSnapshot decides about the snapshot that hangs at p, which leaves the overlay:
// indexed, or void. The caller holds mu.
func (o *overlay) releaseSnapshot(p *pending) {
	h := p.snapshot
	if h == nil {
		return
	}
	p.snapshot = nil
	if p.durable {
		o.ready(h)
		return
	}
	o.snapshots.letGo(h)
	o.stats.SnapshotsDropped++
}

// takeSnapshots appends what is ready to pairs; storedSnapshots is then told.
func (o *overlay) takeSnapshots(pairs []journal.Pair) ([]journal.Pair, []*held) {
	o.mu.Lock()
	taken := o.snapshots.take()
	o.mu.Unlock()
	for _, h := range taken {
		pairs = append(pairs, format.SealSnapshot(format.SnapshotKey(h.id.log, h.id.key), &h.snapshot))
	}
	return pairs, taken
}

// storedSnapshots forgets what the index has now. The caller holds mu.
func (o *overlay) storedSnapshots(all []*held) {
	for _, h := range all {
		o.snapshots.letGo(h)
		o.stats.Snapshots++
		o.stats.SnapshotBytes += uint64(len(h.snapshot.State))
	}
}

// takeCounts appends the entries of the logs that groups or retentions have changed.
func (o *overlay) takeCounts(pairs []journal.Pair, groups []*group) []journal.Pair {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, g := range groups {
		for _, b := range g.blocks {
			o.logs[b.Log].size.changed = true
		}
	}
	take := func(s *logState) {
		if s.size.changed && s.size.known {
			pairs = append(pairs, journal.Pair{Key: format.CountKey(s.name), Value: format.EncodeCount(s.count())})
			s.size.changed = false
		}
	}
	for _, g := range groups {
		for _, b := range g.blocks {
			take(o.logs[b.Log])
		}
	}
	for _, s := range o.recount {
		take(s)
	}
	o.recount = nil
	return pairs
}

// cutBytes takes what a retention has cut off out of the count. The caller holds mu.
func (o *overlay) cutBytes(s *logState, bytes uint64) {
	if !s.size.known {
		return // who counts finds that the cut has moved
	}
	s.size.bytes -= int64(bytes)
	o.noteCount(s)
}

// noteCount makes the indexer write a log's entry. The caller holds mu.
func (o *overlay) noteCount(s *logState) {
	s.size.changed = true
	o.recount = append(o.recount, s)
	o.wakeIndexer()
}

// signal wakes the committer.
func (o *overlay) signal() { wake(o.wake) }

// wakeIndexer makes the indexer look for work other than groups.
func (o *overlay) wakeIndexer() { wake(o.indexWake) }

// wrote records that a group is on disk, as these blocks.
func (o *overlay) wrote(g *group, blocks []journal.Block, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range g.commits {
		p.durable = true
		p.log.size.writing -= int64(p.size)
		p.entity.waiting--
		if last := p.first + journal.Position(len(p.commit.Events)) - 1; last > p.log.head {
			p.log.head = last
		}
		o.stats.Events += uint64(len(p.commit.Events))
		for i := range p.commit.Events {
			o.stats.EventBytes += uint64(len(p.commit.Events[i].Data) + len(p.commit.Events[i].Metadata))
		}
	}
	for _, b := range blocks {
		s := o.logs[b.Log]
		s.batches++
		s.stamp = *s.last // no later block has been laid out
		if b.Sequence == 1 {
			s.origin = s.first
		}
		s.size.bytes += int64(len(b.Data))
		o.stats.Bytes += uint64(len(b.Data))
		o.stats.BatchBytes.Add(uint64(len(b.Data)))
	}
	o.stats.IndexLag += len(g.commits)
	o.stats.SyncMicros.Add(uint64(took.Microseconds()))
	o.stats.GroupCommits.Add(uint64(len(g.commits)))
	o.stats.Commits += uint64(len(g.commits))
	o.stats.Batches += uint64(len(blocks))
	o.stats.Syncs++
	o.stats.SyncTime += took
	o.stats.LastSync = took
	o.stats.LargestGroup = max(o.stats.LargestGroup, len(g.commits))
}

// updated records that the index has these snapshots, and all that came before them.
func (o *overlay) updated(snapshots []*held, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.IndexUpdates++
	o.stats.IndexTime += took
	o.storedSnapshots(snapshots)
}

// told records that the senders of a group know its outcome.
func (o *overlay) told(g *group) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flying -= len(g.commits)
}

// gathers says whether the indexer may wait for commits that are on their way to the disk. Those who append must not
// come to wait for room, which only an update makes.
func (o *overlay) gathers() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.flying > 0 && o.wanted == 0 && o.queue.commits <= o.opt.MaxPendingCommits/2 &&
		o.queue.bytes <= o.opt.MaxPendingBytes/2
}

// queued is the number of commits that the committer has not taken yet.
func (o *overlay) queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.queue.queued
}

// err is why the journal failed, or nil while it has not.
func (o *overlay) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failure == nil {
		return nil
	}
	return o.failure
}
