package commitlog

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/mint"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// Journal is an open journal. Its methods may be called concurrently.
type Journal struct {
	storage journal.Storage
	opt     Options
	space   *space
	// damaged logs, as Open found them. Constant after it.
	damaged damages
	// mended is the damage of the index, as Open found it; nil if there was none. Constant after it.
	mended *format.IndexDamage

	mu sync.Mutex // guards all below, down to the next blank line; no I/O under it

	logs       map[journal.LogName]*logState
	queue      queue
	flying     int                  // commits handed in, not yet passed to the indexer
	bases      []*baseBatch         // handed in likewise
	typeCuts   []*typeCut           // of retentions, for the indexer
	typesEnded bool                 // the indexer has ended, and takes no more of them
	recount    []*logState          // whose size changed otherwise than by a group, for the indexer
	days       []format.PromisedDay // of which the index has answers, the latest first; never changed in place
	wanted     int                  // those who wait for the index
	versions   versionCache         // of entities that are not in an overlay; see Options.VersionCache
	snapshots  snapshotQueue
	failure    *journal.Error // why the journal failed; nil while it did not
	closing    bool
	stats      journal.Stats

	maker format.BatchMaker // the committer's own

	wake      chan struct{} // capacity 1: there is something in a queue, or closing
	indexWake chan struct{} // capacity 1: there is something for the indexer besides groups
	completed chan *group   // committer to completer
	indexed   chan *group   // completer to indexer
	failed    chan struct{} // closed with failure
	stopped   sync.WaitGroup
	stopCount context.CancelFunc // ends countLoop
	reads     gate               // calls that read from the storage
	closeErr  error
	closeOnce sync.Once
}

type entityID struct {
	log journal.LogName
	key string
}

// logState is what the journal keeps of one log. Guarded by Journal.mu, but for
// the fields of the committer.
type logState struct {
	name  journal.LogName
	head  journal.Position // of the last event on disk
	stamp journal.Stamp    // of the batch with that event; zero if there is none, or it is damaged
	// of the log's first batch, once that is on disk; constant then, so that receipts read it without mu
	origin   journal.Stamp
	indexed  journal.Position // up to which all events are in the index
	batches  uint64           // on disk
	size     logBytes         // of them, from the cut on
	entities map[string]*entity
	ids      map[journal.CommandID]*pending
	unused   map[journal.CommandID]idUse // ids that are neither there nor have an answer in the index; see absent
	queue    logQueue
	entered  uint64 // commits that were handed in
	left     uint64 // of them, commits that are indexed, or void
	// trimmed is the last retention's cut: what stands before it is not served, whether
	// it is still there or not. Zero if there was none.
	trimmed   format.Cut
	retaining bool // one at a time
	// indexing counts index updates of this log. Who looked into the index without
	// the lock looks again if it moved, as a commit may have left the overlay meanwhile.
	indexing uint64

	// counted is the batch from which on the event catalogue counts. Owned by the indexer.
	counted uint64

	// Owned by the committer.
	next     journal.Position // of the next event
	sequence uint64           // of the last batch
	chain    format.ChainHash
	first    journal.Stamp    // of the first batch
	last     *journal.Stamp   // of the last batch with events; what it points to is constant
	time     journal.UnixNano // of the last batch
}

// entity is the overlay of one entity: its commits that are not in the index yet.
type entity struct {
	id      versionKey
	version journal.Version // after all of them
	commits []*pending
	waiting int // commits that are not on disk
}

// pending is a commit between Append and the index.
type pending struct {
	commit  *journal.Commit
	again   time.Duration // see format.AppendCommit
	log     *logState
	entity  *entity
	size    int    // of its records, in bytes
	encoded []byte // its records, if they are short; long ones are encoded into their batch
	done    func(journal.Receipt, error)

	// Guarded by Journal.mu until the commit is on disk or void, constant then.
	waiters  []func(*pending, error) // called after done
	durable  bool
	snapshot *held // of the entity as this commit left it

	// The committer's until durable is set, constant then.
	first journal.Position
	time  journal.UnixNano
	place format.Place
	stamp *journal.Stamp // see Receipt.Stamp
}

// proven is what is true once the commit is on disk.
func (p *pending) proven() journal.Proven {
	c := p.commit
	return journal.Proven{
		Log: c.Log, Key: c.Command.Key, ID: c.Command.ID, First: p.first, Events: uint32(len(c.Events)),
		Version: c.Expected + journal.Version(len(c.Events)), Time: p.time, Origin: p.log.origin, Stamp: *p.stamp,
	}
}

func (p *pending) receipt() journal.Receipt { return journal.NewReceipt(minting, p.proven()) }

// minting is with what the journal makes its receipts.
var minting = mint.NewKey()

// Open opens the journal that the storage holds. It completes the index from the log, which takes time in proportion
// to what the index lacks, and loads no event. An index that is damaged is set aside and rebuilt; see
// [Journal.IndexDamage]. A log that is damaged takes no commits, and the others work; see [Journal.Damage]. The journal
// closes the storage when it is closed. If Open fails, the caller closes it.
func Open(ctx context.Context, storage journal.Storage, o Options) (*Journal, error) {
	o = o.withDefaults()
	if o.Codec != journal.CodecS2 && o.Codec != journal.CodecNone {
		return nil, &journal.Error{Op: "open", Kind: journal.KindInvalid, Detail: "there is no codec " +
			strconv.Quote(string(o.Codec)) + "; there are s2 and none"}
	}
	j := &Journal{
		storage: storage, opt: o, maker: format.BatchMaker{Codec: o.Codec}, space: newSpace(storage.Space),
		damaged: damages{},
		logs:    map[journal.LogName]*logState{}, queue: newQueue(&o), versions: newVersionCache(o.VersionCache),
		// Two groups between committer and completer let the next sync run while the
		// senders of the last one are told. The indexer may be far behind, as
		// MaxPending… bounds what it holds up; it shall not hold up answers.
		wake: make(chan struct{}, 1), completed: make(chan *group, 2), indexed: make(chan *group, 4096),
		failed:    make(chan struct{}),
		indexWake: make(chan struct{}, 1), snapshots: newSnapshotQueue(o.MaxPendingSnapshotBytes),
	}
	names, err := storage.Log.Logs(ctx)
	if err != nil {
		return nil, &journal.Error{Op: "open", Kind: stored.StorageKind(err), Err: err}
	}
	for _, name := range names {
		last, ok, err := storage.Log.Last(ctx, name)
		if err := j.damaged.add(name, err); err != nil {
			return nil, &journal.Error{Op: "open", Log: name, Kind: stored.StorageKind(err), Err: err}
		}
		if !ok {
			continue
		}
		s, err := openLog(last)
		if err := j.damaged.add(name, err); err != nil {
			return nil, err
		}
		j.logs[name] = s
	}
	if err := j.openIndex(ctx); err != nil {
		return nil, err
	}
	if err := j.findStamps(ctx); err != nil {
		return nil, &journal.Error{Op: "open", Kind: stored.StorageKind(err), Err: err}
	}
	if err := j.checkQuarantined(ctx, names); err != nil {
		return nil, &journal.Error{Op: "open", Kind: stored.StorageKind(err), Err: err}
	}
	if storage.Count != nil {
		j.stats.Storage.Written = storage.Count().Written
	}
	j.stopped.Add(3)
	go j.commitLoop()
	go j.completeLoop()
	go j.indexLoop()
	counting, stop := context.WithCancel(context.WithoutCancel(ctx))
	j.stopCount = stop
	if j.uncounted() {
		j.stopped.Add(1)
		go j.countLoop(counting)
	}
	return j, nil
}

// openLog continues a log behind its last block.
func openLog(last journal.Block) (*logState, error) {
	s := newLog(last.Log)
	s.size.known = false
	s.chain = format.HashOf(last.Data)
	err := format.EachCommit(last,
		func(*format.BatchHeader, int, journal.Position, *format.DecodedCommit) error { return nil })
	if err == nil {
		h, _, _ := format.DecodeBatch(last.Data)
		s.next, s.time = h.First+journal.Position(h.Events), h.Time
		if h.Events > 0 {
			s.stamp = s.chain.Stamp()
		}
	} else { // then up to the one before, as the place of this one tells
		s.next = last.First
		last.Sequence--
	}
	// Open completes the index
	s.sequence, s.batches, s.head, s.indexed = last.Sequence, last.Sequence, s.next-1, s.next-1
	return s, err
}

func newLog(name journal.LogName) *logState {
	return &logState{name: name, next: 1, last: new(journal.Stamp), size: logBytes{known: true},
		entities: map[string]*entity{},
		ids:      map[journal.CommandID]*pending{}, unused: map[journal.CommandID]idUse{}}
}

// log returns the state of a log, made on first use. The caller holds mu.
func (j *Journal) log(name journal.LogName) *logState {
	s := j.logs[name]
	if s == nil {
		s = newLog(name)
		j.logs[name] = s
	}
	return s
}

// Close writes what was handed in, completes the index, waits for calls that are
// reading and closes the storage. If ctx ends first, the rest goes on and Close waits
// for nothing more; call it again to wait. Later calls fail with [journal.KindClosed].
func (j *Journal) Close(ctx context.Context) error {
	j.mu.Lock()
	j.closing = true
	j.mu.Unlock()
	j.stopCount()
	j.signal()
	gone := make(chan struct{})
	go func() {
		j.stopped.Wait()
		j.reads.close()
		j.closeOnce.Do(func() { j.closeErr = j.storage.Close() })
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		return &journal.Error{Op: "close", Kind: journal.KindCanceled, Err: ctx.Err()}
	}
	if j.closeErr != nil {
		return &journal.Error{Op: "close", Kind: stored.StorageKind(j.closeErr), Err: j.closeErr}
	}
	return nil
}

// Failed is closed when the journal has failed; Err says why.
func (j *Journal) Failed() <-chan struct{} { return j.failed }

// Err returns why the journal failed, or nil while it has not.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failure == nil {
		return nil
	}
	return j.failure
}

// Head is the position of the last event on disk, 0 if the log has none.
func (j *Journal) Head(log journal.LogName) journal.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.logs[log]; s != nil {
		return s.head
	}
	return 0
}

// First is the position of the first event that a log still has, or will have: 1 if no
// retention has deleted any.
func (j *Journal) First(log journal.LogName) journal.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.logs[log]; s != nil {
		return max(s.trimmed.Position, 1)
	}
	return 1
}

// signal wakes the committer.
func (j *Journal) signal() { wake(j.wake) }

// wakeIndexer has the indexer look for what it is handed besides groups.
func (j *Journal) wakeIndexer() { wake(j.indexWake) }

// wake wakes the goroutine that reads from a channel of capacity 1, if it is not about to look by itself.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
