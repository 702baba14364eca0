package engine

import (
	"sync"
	"sync/atomic"
)

// mailbox is a bounded queue with many senders and one owner. put never blocks. The owner takes all
// tasks at once, so that it locks once a group and not once a command.
type mailbox struct {
	maxTasks int64
	maxBytes int64

	// wake holds a token whenever there may be something new for the owner: tasks, or the end of
	// intake.
	wake chan struct{}

	// queued and bytes count the tasks that were put and have not begun, and those that were
	// requeued. put adds to them, under mu; the owner adds and subtracts; any goroutine may read
	// them.
	queued atomic.Int64
	bytes  atomic.Int64

	mu    sync.Mutex // guards all below; held for a few instructions only
	open  bool
	tasks []*task
}

// admission is the result of put.
type admission uint8

const (
	admissionAdmitted admission = iota
	admissionClosed
	admissionMany  // refused: there are maxTasks tasks
	admissionLarge // refused: with it there were more than maxBytes
)

func newMailbox(maxTasks int, maxBytes int64) *mailbox {
	return &mailbox{maxTasks: int64(maxTasks), maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// put gives t to the owner. A task that is larger than maxBytes is admitted to an empty mailbox; it
// would never be admitted otherwise.
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
		m.notify()
	}
	return admissionAdmitted
}

// take swaps all waiting tasks for an empty buffer. Each still counts as queued until begun. open
// is false when no more tasks can come.
func (m *mailbox) take(buffer []*task) (tasks []*task, open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tasks, m.tasks = m.tasks, buffer[:0]
	return tasks, m.open
}

// begun subtracts t, which the owner begins now.
func (m *mailbox) begun(t *task) {
	m.queued.Add(-1)
	m.bytes.Add(-t.size)
}

// requeued adds t again, which has begun but has to wait once more.
func (m *mailbox) requeued(t *task) {
	m.queued.Add(1)
	m.bytes.Add(t.size)
}

// notify makes sure that the owner looks at the mailbox.
func (m *mailbox) notify() {
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
	m.notify()
}
