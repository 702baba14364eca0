package commitlog

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// group is what one append of the storage writes.
type group struct {
	commits []*pending
	blocks  []journal.Block
	ends    []journal.Position // position of the next event after each block of commits; these blocks come first
	bytes   int                // of the records of the commits
	bases   []*baseBatch
	err     error // all commits are void
}

// baseBatch is a batch of a retention on its way to log and index. encoded holds its records; done, of capacity 1,
// receives the outcome once the batch is in the index.
type baseBatch struct {
	log      *logState
	records  uint32
	encoded  []byte
	sequence uint64 // set by the committer before done
	done     chan error
}

// committer takes all commits that wait, writes them with one append of the storage, and passes them on. It alone owns
// the tails of logs.
type committer struct {
	log     journal.LogStore
	overlay *overlay
	maker   format.BatchMaker
	out     chan<- *group
}

// logTail is the end of a log, where the next batch goes. Owned by the committer.
type logTail struct {
	next     journal.Position // of the next event
	sequence uint64           // of the last batch
	chain    format.ChainHash
	first    journal.Stamp    // of the first batch
	last     *journal.Stamp   // of the last batch with events; the value it points to never changes
	time     journal.UnixNano // of the last batch
}

// run returns when the journal is closing and nothing is left to write.
func (c *committer) run() {
	defer close(c.out)
	for {
		c.gather()
		g, more := c.overlay.takeGroup()
		if g == nil {
			if !more {
				return
			}
			<-c.overlay.wake
			continue
		}
		c.write(g)
		c.out <- g
	}
}

// gather yields the processor while others are about to hand something in. On a busy machine the committer would
// otherwise sync before they have had their turn, for a few commits. On an idle machine it costs one yield.
func (c *committer) gather() {
	const most = 16
	for last, turn := 0, 0; turn < most; turn++ {
		n := c.overlay.queued()
		if n == last || n >= c.overlay.opt.MaxGroupCommits {
			return
		}
		last = n
		runtime.Gosched()
	}
}

// write lays out the group's commits in their logs, appends them and sets what their receipts need.
func (c *committer) write(g *group) {
	if g.err != nil {
		c.overlay.void(g)
		return
	}
	c.layOut(g)
	start := time.Now()
	// The caller's context is not used: a commit that was handed in is written.
	if err := c.log.Append(context.Background(), g.blocks); err != nil {
		c.overlay.fail(g, &journal.Error{Op: "append", Kind: failureKind(err), Err: err})
		return
	}
	took := time.Since(start)
	blocks := g.blocks
	g.forget()
	c.overlay.wrote(g, blocks, took)
}

// forget releases the data of written blocks: the commits have all that the index needs.
func (g *group) forget() {
	g.blocks = slices.Clone(g.blocks) // the storage may keep the original slice
	for i := range g.ends {
		g.blocks[i].Data = nil
	}
}

// layOut builds the group's blocks: for each log its commits in order, split into batches.
func (c *committer) layOut(g *group) {
	now := c.overlay.opt.Clock()
	open := map[*logState]*batchBuilder{}
	var order []*batchBuilder // makes the order of the blocks deterministic
	for _, p := range g.commits {
		b := open[p.log]
		if b == nil {
			b = &batchBuilder{log: p.log, maker: &c.maker, room: min(g.bytes, c.overlay.opt.MaxBatchBytes)}
			open[p.log] = b
			order = append(order, b)
			p.log.time = max(p.log.time, now)
		}
		if b.header.Commits > 0 && len(b.buf)+p.size > c.overlay.opt.MaxBatchBytes {
			b.finish(g)
		}
		b.add(p)
	}
	for _, b := range order {
		b.finish(g)
	}
	// Their content is on disk already, so they may overtake queued commits.
	for _, b := range g.bases {
		b.log.time = max(b.log.time, now)
		g.blocks = append(g.blocks, b.block(&c.maker))
	}
}

// batchBuilder fills the batches of one log, one after the other.
type batchBuilder struct {
	log    *logState
	maker  *format.BatchMaker
	header format.BatchHeader
	buf    []byte
	stamp  *journal.Stamp // of the batch, filled in when it is finished
	room   int            // first guess of the bytes that the records of the batches to come need
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

// block lays out a base batch in its log.
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
