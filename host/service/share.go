package service

import (
	"sync/atomic"
)

// Memory accounts for bytes that are shared. It is safe for concurrent use and does not block.
type Memory interface {
	// TryTake takes bytes, and reports whether there was room for them.
	TryTake(bytes int64) bool
	// Give gives back bytes that were taken.
	Give(bytes int64)
}

// Share is memory of an event that its subscribers share while they write it: one of its encoded forms or, if
// that is large, its data. It is counted once, from the first Take to the last Give. It is safe for
// concurrent use.
type Share struct {
	memory  Memory
	bytes   int64
	holders atomic.Int64
}

// Share is the event's share for a form; nil if it is not counted. Large data has one share for both forms.
func (e *Event) Share(form EventForm) *Share {
	if e.memory == nil {
		return nil
	}
	if len(e.Data) > LargeData {
		form = NativeEvent
	}
	t := e.text(form)
	t.shared.Do(func() {
		n := len(e.Data)
		if n <= LargeData {
			n = cap(e.Text(form))
		}
		t.share = &Share{memory: e.memory, bytes: int64(n)}
	})
	return t.share
}

// Bytes is its size.
func (s *Share) Bytes() int { return int(s.bytes) }

// Take takes a part of it, and fails if there is no room. Each successful Take is followed by one Give.
func (s *Share) Take() bool {
	for {
		if n := s.holders.Load(); n > 0 {
			if s.holders.CompareAndSwap(n, n+1) {
				return true
			}
			continue
		}
		if !s.memory.TryTake(s.bytes) {
			return false
		}
		if s.holders.CompareAndSwap(0, 1) {
			return true
		}
		s.memory.Give(s.bytes) // another goroutine was faster
	}
}

// Give gives a part back.
func (s *Share) Give() {
	if s.holders.Add(-1) == 0 {
		s.memory.Give(s.bytes)
	}
}
