package commitlog

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// group is what one append to the storage writes.
type group struct {
	commits []*pending
	blocks  []journal.Block
	ends    []journal.Position // where the log goes on behind each block of commits, which come first
	bytes   int                // of the records of the commits
	bases   []*baseBatch
	err     error // all commits are void
}

// baseBatch is a batch of a retention on its way to log and index. Encoded are its
// records; done, of capacity 1, gets the outcome once the batch is in the index.
type baseBatch struct {
	log      *logState
	records  uint32
	encoded  []byte
	sequence uint64 // given by the committer before done
	done     chan error
}

// commitLoop is the committer: it takes what gathered, writes it with one append
// and passes it on. It alone owns the committer's fields of logs.
func (j *Journal) commitLoop() {
	defer j.stopped.Done()
	defer close(j.completed)
	for {
		j.gather()
		g, more := j.takeGroup()
		if g == nil {
			if !more {
				return
			}
			<-j.wake
			continue
		}
		j.write(g)
		j.completed <- g
	}
}

// gather lets those run who are about to hand something in, for as long as they do:
// on a busy machine the committer would otherwise be back before they have had their
// turn, with a sync for a few commits. On an idle one it costs one yield.
func (j *Journal) gather() {
	const most = 16
	for last, turn := 0, 0; turn < most; turn++ {
		j.mu.Lock()
		n := j.queue.queued
		j.mu.Unlock()
		if n == last || n >= j.opt.MaxGroupCommits {
			return
		}
		last = n
		runtime.Gosched()
	}
}

// takeGroup takes what fits into one group. more is false if there will never be anything again.
func (j *Journal) takeGroup() (g *group, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.queue.queued == 0 && len(j.bases) == 0 {
		return nil, !j.closing
	}
	g = &group{commits: make([]*pending, 0, min(j.queue.queued, j.opt.MaxGroupCommits)), bases: j.bases}
	j.bases = nil
	if j.failure != nil {
		g.err = j.failure
	}
	j.queue.fill(g)
	return g, true
}

// write places the group's commits in their logs, appends them and mints what
// the receipts need.
func (j *Journal) write(g *group) {
	if g.err != nil {
		j.void(g)
		return
	}
	j.layOut(g)
	start := time.Now()
	// Not the caller's context: a commit that was handed in is written.
	if err := j.storage.Log.Append(context.Background(), g.blocks); err != nil {
		j.fail(g, &journal.Error{Op: "append", Kind: failureKind(err), Err: err})
		return
	}
	took := time.Since(start)
	blocks := g.blocks
	g.forget()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range g.commits {
		p.durable = true
		p.log.size.writing -= int64(p.size)
		p.entity.waiting--
		if last := p.first + journal.Position(len(p.commit.Events)) - 1; last > p.log.head {
			p.log.head = last
		}
		j.stats.Events += uint64(len(p.commit.Events))
		for i := range p.commit.Events {
			j.stats.EventBytes += uint64(len(p.commit.Events[i].Data) + len(p.commit.Events[i].Metadata))
		}
	}
	for _, b := range blocks {
		s := j.logs[b.Log]
		s.batches++
		s.stamp = *s.last // nothing behind these blocks has been laid out
		if b.Sequence == 1 {
			s.origin = s.first
		}
		s.size.bytes += int64(len(b.Data))
		j.stats.Bytes += uint64(len(b.Data))
		j.stats.BatchBytes.Add(uint64(len(b.Data)))
	}
	j.stats.IndexLag += len(g.commits)
	j.stats.SyncMicros.Add(uint64(took.Microseconds()))
	j.stats.GroupCommits.Add(uint64(len(g.commits)))
	j.stats.Commits += uint64(len(g.commits))
	j.stats.Batches += uint64(len(blocks))
	j.stats.Syncs++
	j.stats.SyncTime += took
	j.stats.LastSync = took
	j.stats.LargestGroup = max(j.stats.LargestGroup, len(g.commits))
}

// forget lets go of blocks that are written: what the index has to know of them, the commits say.
func (g *group) forget() {
	g.blocks = slices.Clone(g.blocks) // the storage may keep those
	for i := range g.ends {
		g.blocks[i].Data = nil
	}
}

// layOut builds the group's blocks: for each log its commits in order, cut into
// batches.
func (j *Journal) layOut(g *group) {
	now := j.opt.Clock()
	open := map[*logState]*batchBuilder{}
	var order []*batchBuilder // so that blocks come out the same each time
	for _, p := range g.commits {
		b := open[p.log]
		if b == nil {
			b = &batchBuilder{log: p.log, maker: &j.maker, room: min(g.bytes, j.opt.MaxBatchBytes)}
			open[p.log] = b
			order = append(order, b)
			p.log.time = max(p.log.time, now)
		}
		if b.header.Commits > 0 && len(b.buf)+p.size > j.opt.MaxBatchBytes {
			b.finish(g)
		}
		b.add(p)
	}
	for _, b := range order {
		b.finish(g)
	}
	// What these hold is on disk already, so they may overtake commits in the queue.
	for _, b := range g.bases {
		b.log.time = max(b.log.time, now)
		g.blocks = append(g.blocks, b.block(&j.maker))
	}
}

// batchBuilder fills one batch of a log after the other.
type batchBuilder struct {
	log    *logState
	maker  *format.BatchMaker
	header format.BatchHeader
	buf    []byte
	stamp  *journal.Stamp // of the batch, filled in when it is finished
	room   int            // for the records of the batches to come, in bytes, as a first guess
}

func (b *batchBuilder) add(p *pending) {
	s := b.log
	if b.header.Commits == 0 {
		s.sequence++
		b.header = format.BatchHeader{Log: s.name, First: s.next, Sequence: s.sequence, Time: s.time, Previous: s.chain}
		b.stamp = new(journal.Stamp)
		b.buf = format.BeginBatch(b.maker.Take(format.BatchHeaderSize+len(s.name)+max(p.size, b.room)), s.name)
	}
	p.first, p.time = s.next, s.time
	p.place = format.Place{First: b.header.First, Sequence: b.header.Sequence, Ordinal: uint64(b.header.Commits),
		Time: s.time}
	if p.encoded != nil {
		b.buf = append(b.buf, p.encoded...)
		p.encoded = nil
	} else {
		b.buf = format.AppendCommit(b.buf, p.commit, p.again)
	}
	b.header.Commits++
	b.header.Events += uint32(len(p.commit.Events))
	if b.header.Events > 0 {
		s.last = b.stamp
	}
	p.stamp = s.last
	s.next += journal.Position(len(p.commit.Events))
}

// block places a base batch in its log.
func (b *baseBatch) block(m *format.BatchMaker) journal.Block {
	s := b.log
	s.sequence++
	b.sequence = s.sequence
	h := format.BatchHeader{Log: s.name, First: s.next, Sequence: s.sequence, Time: s.time, Previous: s.chain,
		Commits: b.records, Base: true}
	data := append(format.BeginBatch(m.Take(format.BatchHeaderSize+len(s.name)+len(b.encoded)), s.name), b.encoded...)
	data, s.chain = m.Finish(data, &h)
	return journal.Block{Log: s.name, First: h.First, Sequence: h.Sequence, Data: data}
}

// finish adds the batch to the group.
func (b *batchBuilder) finish(g *group) {
	var data []byte
	data, b.log.chain = b.maker.Finish(b.buf, &b.header)
	*b.stamp = b.log.chain.Stamp()
	if b.header.Sequence == 1 {
		b.log.first = *b.stamp
	}
	g.blocks = append(g.blocks, journal.Block{Log: b.log.name, First: b.header.First, Sequence: b.header.Sequence,
		Data: data})
	g.ends = append(g.ends, b.log.next)
	b.header, b.buf = format.BatchHeader{}, nil
}

func failureKind(err error) journal.ErrorKind {
	if journal.KindOf(err) == journal.KindFull {
		return journal.KindFull
	}
	return journal.KindFailed
}

// fail ends the journal: the group's outcome is unknown, all later ones are void.
func (j *Journal) fail(g *group, err *journal.Error) {
	j.mu.Lock()
	if j.failure == nil {
		j.failure = err
		close(j.failed)
	}
	j.queue.makeRoom() // who waits for some shall see the failure
	j.mu.Unlock()
	if g != nil {
		g.err = err
		j.void(g)
	}
}

// void takes commits that will not get a receipt out of the overlay, so that
// readers see what is on disk.
func (j *Journal) void(g *group) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range g.commits {
		p.log.size.writing -= int64(p.size)
		p.entity.waiting--
		p.entity.version = min(p.entity.version, p.commit.Expected)
		p.log.indexing++ // who saw it in the overlay must not take it for indexed
		j.release(p)
	}
	j.queue.makeRoom()
}

// completeLoop is the completer: it tells the senders, in order.
func (j *Journal) completeLoop() {
	defer j.stopped.Done()
	defer close(j.indexed)
	for g := range j.completed {
		for _, p := range g.commits {
			if g.err != nil {
				err := &journal.Error{Op: "append", Log: p.commit.Log, Kind: journal.KindFailed,
					Detail: "nobody knows whether the commit is on disk", Err: g.err}
				p.done(journal.Receipt{}, err)
				for _, w := range p.waiters {
					w(p, err)
				}
				continue
			}
			p.done(p.receipt(), nil)
			for _, w := range p.waiters {
				w(p, nil)
			}
		}
		j.mu.Lock()
		j.flying -= len(g.commits)
		j.mu.Unlock()
		j.indexed <- g // also if it is void: the indexer may be waiting for it
	}
}

// indexLoop is the indexer: it writes the index behind the log, and snapshots behind
// the entries of the events they rest on. A failed update ends the journal like a
// failed append, as the overlay must not grow without bound; the next Open completes
// the index.
func (j *Journal) indexLoop() {
	defer j.stopped.Done()
	defer j.endTypeCuts()
	broken := false
	types := newTypeCounter(context.Background(), j.storage.Index)
	var groups []*group
	var pairs []journal.Pair
	for open := true; open; {
		var g *group
		select {
		case g, open = <-j.indexed:
		case <-j.indexWake:
		}
		if broken {
			continue // its commits stay in the overlay, where readers find them
		}
		var err error
		groups, pairs, err = j.index(groups[:0], pairs[:0], g, types)
		if err == nil {
			err = j.takeTypeCuts(types)
		}
		if err != nil {
			broken = true
			j.fail(nil, &journal.Error{Op: "index", Kind: failureKind(err), Err: err})
		}
		clear(pairs)
		clear(groups)
	}
}

// index writes what g, the groups that gather behind it, and the snapshots that are
// ready contribute to the index. g is nil if there are only snapshots. It fills groups
// and pairs, and returns them for the next time.
func (j *Journal) index(
	groups []*group, pairs []journal.Pair, g *group, types *typeCounter,
) (_ []*group, _ []journal.Pair, err error) {
	for g != nil {
		if g.err == nil {
			groups = append(groups, g)
			if pairs, err = indexGroup(pairs, g, types); err != nil {
				return groups, pairs, err
			}
		}
		g = j.along(len(pairs))
	}
	pairs, snapshots := j.takeSnapshots(pairs)
	pairs, days := j.daysOf(pairs, groups)
	pairs = types.take(j.takeCounts(pairs, groups))
	if len(pairs) == 0 {
		return groups, pairs, nil
	}
	pairs = sortPairs(pairs)
	start := time.Now()
	if err := j.storage.Index.Update(context.Background(), pairs); err != nil {
		return groups, pairs, err
	}
	took := time.Since(start)
	j.mu.Lock()
	j.stats.IndexUpdates++
	j.stats.IndexTime += took
	j.storedSnapshots(snapshots)
	j.days = days // before the overlay gives up what is in them
	j.mu.Unlock()
	for _, g := range groups {
		j.releaseIndexed(g)
	}
	return groups, pairs, j.endAnswers(context.Background())
}

// along returns the group that goes into the same update of the index behind so many
// entries, nil if none does. A tree takes up many entries in order at a fraction of what
// they cost one by one, and the overlay has what waits. So while commits are on their
// way to the disk it waits for those, and when there are none it does not: an idle
// journal has its index complete, without a timer.
func (j *Journal) along(entries int) *group {
	if entries >= pairsAtOnce {
		return nil
	}
	select {
	case g := <-j.indexed: // nil if that was the last
		return g
	default:
	}
	j.mu.Lock()
	// Those who append must not come to wait for room, which only an update makes.
	wait := j.flying > 0 && j.wanted == 0 && j.queue.commits <= j.opt.MaxPendingCommits/2 &&
		j.queue.bytes <= j.opt.MaxPendingBytes/2
	j.mu.Unlock()
	if !wait {
		return nil
	}
	return <-j.indexed // it comes, void or not, or the channel is closed
}

// releaseIndexed takes what g brought to the index out of the overlay: thousands of commits may
// come with one update, so that the lock is given up now and then, or all who append
// would stand still meanwhile.
func (j *Journal) releaseIndexed(g *group) {
	const atOnce = 64
	for commits := range slices.Chunk(g.commits, atOnce) {
		j.mu.Lock()
		for _, p := range commits {
			p.log.indexing++
			p.log.indexed = p.first + journal.Position(len(p.commit.Events)) - 1
			j.release(p)
		}
		j.stats.IndexLag -= len(commits)
		j.queue.makeRoom()
		j.mu.Unlock()
	}
	for _, b := range g.bases {
		b.done <- nil
	}
}
