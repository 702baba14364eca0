package stream

import (
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
)

// Share is the memory of an event that all who write it to their subscribers have together:
// its encoded form, or its data if it is large. It is counted once, from when the first of them
// takes it until the last gives it back; see [Options.Account]. It is safe for concurrent use.
type Share struct {
	account *budget.Account
	bytes   int64
	holders atomic.Int64
}

// Share is the event's; nil if the event is of nobody's stream.
func (e *Event) Share() *Share {
	if e.hub == nil {
		return nil
	}
	e.shared.Do(func() {
		n := len(e.Data)
		if n <= LargeData {
			n = cap(e.CloudEvent())
		}
		e.share = &Share{account: e.hub.options.Account, bytes: int64(n)}
	})
	return e.share
}

// Bytes is how much memory it is.
func (s *Share) Bytes() int { return int(s.bytes) }

// Take takes a part in it, unless there is no room for it in the account. Whoever has one gives
// it back with Give.
func (s *Share) Take() bool {
	for {
		if n := s.holders.Load(); n > 0 {
			if s.holders.CompareAndSwap(n, n+1) {
				return true
			}
			continue
		}
		if !s.account.TryTake(budget.FlightBytes, s.bytes) {
			return false
		}
		if s.holders.CompareAndSwap(0, 1) {
			return true
		}
		s.account.Give(budget.FlightBytes, s.bytes) // somebody else was faster
	}
}

// Give gives a part back.
func (s *Share) Give() {
	if s.holders.Add(-1) == 0 {
		s.account.Give(budget.FlightBytes, s.bytes)
	}
}
