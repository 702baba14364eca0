package engine

import (
	"sync"
	"sync/atomic"
)

// mailbox is a bounded queue of many senders and one owner. Putting never
// blocks; the owner takes all there is at once, so that the lock is taken once a
// group and not once a command.
type mailbox struct {
	maxTasks int64
	maxBytes int64

	// wake holds a token whenever there may be something that the owner has not
	// seen: tasks, or the end of intake.
	wake chan struct{}

	// queued and bytes count what was put and has not been begun, and what waits again.
	// They grow under mu, or by the owner, who makes them shrink; anybody reads them.
	queued atomic.Int64
	bytes  atomic.Int64

	mu    sync.Mutex // guards all below; held for a few instructions only
	open  bool
	tasks []*task
}

// admission is what became of a task that was put.
type admission uint8

const (
	admissionAdmitted admission = iota
	admissionClosed
	admissionMany  // there are as many tasks as may be
	admissionLarge // with it there were more bytes than may be
)

func newMailbox(maxTasks int, maxBytes int64) *mailbox {
	return &mailbox{maxTasks: int64(maxTasks), maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// put hands t to the owner. A task that is bigger than all of the mailbox may
// enter an empty one: it would never get in otherwise.
func (m *mailbox) put(t *task) admission {
	m.mu.Lock()
	if !m.open {
		m.mu.Unlock()
		return admissionClosed
	}
	queued := m.queued.Load()
	full := admissionAdmitted
	switch {
	case queued >= m.maxTasks:
		full = admissionMany
	case queued > 0 && m.bytes.Load()+t.size > m.maxBytes:
		full = admissionLarge
	}
	if full != admissionAdmitted {
		m.mu.Unlock()
		return full
	}
	m.queued.Add(1)
	m.bytes.Add(t.size)
	m.tasks = append(m.tasks, t)
	first := len(m.tasks) == 1
	m.mu.Unlock()
	if first {
		m.rouse()
	}
	return admissionAdmitted
}

// take swaps all waiting tasks for an empty buffer. They count as queued until
// the owner has begun each. open is false once no more can come.
func (m *mailbox) take(buffer []*task) (tasks []*task, open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tasks, m.tasks = m.tasks, buffer[:0]
	return tasks, m.open
}

// begun tells that the owner has begun t.
func (m *mailbox) begun(t *task) {
	m.queued.Add(-1)
	m.bytes.Add(-t.size)
}

// back tells that t, which was begun, waits again.
func (m *mailbox) back(t *task) {
	m.queued.Add(1)
	m.bytes.Add(t.size)
}

// rouse makes the owner look, if it is not about to.
func (m *mailbox) rouse() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// setOpen starts or ends the intake.
func (m *mailbox) setOpen(open bool) {
	m.mu.Lock()
	m.open = open
	m.mu.Unlock()
	m.rouse()
}
