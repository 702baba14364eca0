package journal

import (
	"sync/atomic"
	"time"
)

// Spacer is an [Engine] that knows how much room its disk has left. An engine
// whose writes must not meet a full disk says so before: the journal then refuses
// commits while there is less room than the engine keeps in reserve, and takes
// them again, on the same engine, when there is more.
type Spacer interface {
	// Space returns nil while there is more room than the reserve, else an error of
	// KindFull that says how much there is and how much it has to be. It is cheap: it
	// may be asked fifty times a second.
	Space() error
}

// spaceAge is how old an answer of Space may be. What can be written in that time
// has to fit into the reserve, beside what was accepted before.
const spaceAge = 20 * time.Millisecond

// space remembers what the engine said about its room.
type space struct {
	engine Spacer // nil: the engine does not know
	born   time.Time
	looked atomic.Int64 // when it was last asked, after born; who moves it asks
	full   atomic.Pointer[error]
}

func newSpace(e Engine) *space {
	s := &space{born: time.Now()}
	s.engine, _ = e.(Spacer)
	s.looked.Store(-int64(spaceAge))
	return s
}

// refuse returns nil, or why nothing may be written to the log now.
func (s *space) refuse(log LogName) error {
	if s.engine == nil {
		return nil
	}
	last, now := s.looked.Load(), int64(time.Since(s.born))
	if now-last >= int64(spaceAge) && s.looked.CompareAndSwap(last, now) {
		if err := s.engine.Space(); err != nil {
			s.full.Store(&err)
		} else {
			s.full.Store(nil)
		}
	}
	if err := s.full.Load(); err != nil {
		return &Error{Op: "append", Log: log, Kind: kindOfEngine(*err), Err: *err}
	}
	return nil
}

// Accepts returns nil if commits to the log are taken now, or why they are not, so
// that nobody does work whose outcome will be refused. The answer may have changed
// when Append comes.
func (j *Journal) Accepts(log LogName) error {
	if err := j.space.refuse(log); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.refusal(log)
}

// Space is what the engine says about its room, asked anew: nil, or a KindFull
// error. It may be asked of a journal that has failed, to learn whether opening it
// again has a chance.
func (j *Journal) Space() error {
	if err := j.reads.enter("space", ""); err != nil {
		return err
	}
	defer j.reads.leave()
	if j.space.engine == nil {
		return nil
	}
	return j.space.engine.Space()
}
