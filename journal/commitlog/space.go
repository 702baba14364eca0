package commitlog

import (
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// spaceAge is how old an answer of [journal.Storage.Space] may be. What can be written in that time has to fit into the
// reserve, in addition to what was accepted before.
const spaceAge = 20 * time.Millisecond

// space remembers the last answer of a storage about its room.
type space struct {
	ask    func() error // see [journal.Storage.Space]; may be nil
	born   time.Time
	looked atomic.Int64 // when it was last asked, after born; whoever moves it asks
	full   atomic.Pointer[error]
}

func newSpace(ask func() error) *space {
	s := &space{ask: ask, born: time.Now()}
	s.looked.Store(-int64(spaceAge))
	return s
}

// refuse returns nil, or why nothing may be written to the log now.
func (s *space) refuse(log journal.LogName) error {
	if s.ask == nil {
		return nil
	}
	last, now := s.looked.Load(), int64(time.Since(s.born))
	if now-last >= int64(spaceAge) && s.looked.CompareAndSwap(last, now) {
		if err := s.ask(); err != nil {
			s.full.Store(&err)
		} else {
			s.full.Store(nil)
		}
	}
	if err := s.full.Load(); err != nil {
		return &journal.Error{Op: "append", Log: log, Kind: stored.StorageKind(*err), Err: *err}
	}
	return nil
}

// Accepts returns nil if commits to the log are taken now, or why they are not, so
// that nobody does work whose outcome will be refused. The answer may have changed
// when Append comes.
func (j *Journal) Accepts(log journal.LogName) error {
	if err := j.space.refuse(log); err != nil {
		return err
	}
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	return j.overlay.refusal(log)
}

// Space asks the storage about its room: nil, or a KindFull error; see [journal.Storage.Space]. It may be called on a
// journal that has failed, to learn whether opening it again has a chance.
func (j *Journal) Space() error {
	if err := j.reads.enter("space", ""); err != nil {
		return err
	}
	defer j.reads.leave()
	if j.storage.Space == nil {
		return nil
	}
	return j.storage.Space()
}
