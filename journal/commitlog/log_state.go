package commitlog

import (
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

type entityID struct {
	log journal.LogName
	key string
}

// logState is what the journal keeps of one log. Guarded by overlay.mu, but for
// what says otherwise.
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
	// trimmed is the last retention's cut: what is before it is not served, even if it is still there. Zero if
	// there was none.
	trimmed   format.Cut
	retaining bool // one at a time
	// typesStale is why the event catalogue could not be corrected for the cut trimmed; nil if it could. It then counts
	// deleted events, until the next Open corrects it.
	typesStale error
	// indexing counts index updates of this log. A reader of the index without the lock reads again if it has
	// changed, as a commit may have left the overlay meanwhile.
	indexing uint64

	// counted is the batch from which on the event catalogue counts. Owned by the indexer.
	counted uint64

	logTail
}

// entity is the overlay of one entity: its commits that are not in the index yet.
type entity struct {
	id      versionKey
	version journal.Version // after all of them
	commits []*pending
	waiting int // commits that are not on disk
}

// openLog continues a log after its last block.
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
	return &logState{name: name, logTail: logTail{next: 1, last: new(journal.Stamp)}, size: logBytes{known: true},
		entities: map[string]*entity{},
		ids:      map[journal.CommandID]*pending{}, unused: map[journal.CommandID]idUse{}}
}
