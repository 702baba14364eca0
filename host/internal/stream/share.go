package stream

import (
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
)

// Share is the memory of an event that all who write it to their subscribers have together:
// one of its encoded forms, or its data if it is large. It is counted once, from when the first of them
// takes it until the last gives it back; see [Options.Account]. It is safe for concurrent use.
type Share struct {
	account *budget.Account
	bytes   int64
	holders atomic.Int64
}

// Share is the event's in a form; nil if the event is of nobody's stream. Large data is the same
// in both.
func (e *Event) Share(form Form) *Share {
	if e.hub == nil {
		return nil
	}
	if len(e.Data) > LargeData {
		form = Native
	}
	t := e.text(form)
	t.shared.Do(func() {
		n := len(e.Data)
		if n <= LargeData {
			n = cap(e.Text(form))
		}
		t.share = &Share{account: e.hub.options.Account, bytes: int64(n)}
	})
	return t.share
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
