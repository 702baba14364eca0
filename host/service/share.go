package service

import (
	"sync/atomic"
)

// Memory counts bytes that several hold together. It is safe for concurrent use and does not block.
type Memory interface {
	// TryTake takes bytes, unless there is no room for them.
	TryTake(bytes int64) bool
	// Give gives bytes back that were taken.
	Give(bytes int64)
}

// Share is the memory of an event that all who write it to their subscribers have together:
// one of its encoded forms, or its data if that is large. It is counted once, from when the first of
// them takes it until the last gives it back. It is safe for concurrent use.
type Share struct {
	memory  Memory
	bytes   int64
	holders atomic.Int64
}

// Share is the event's in a form; nil if nobody counts what its subscribers hold. Large data is the
// same in both forms.
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

// Bytes is how much memory it is.
func (s *Share) Bytes() int { return int(s.bytes) }

// Take takes a part in it, unless there is no room to count it. Each part that was taken is given
// back with Give, once.
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
		s.memory.Give(s.bytes) // somebody else was faster
	}
}

// Give gives a part back.
func (s *Share) Give() {
	if s.holders.Add(-1) == 0 {
		s.memory.Give(s.bytes)
	}
}
