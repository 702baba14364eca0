package streams

import (
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// outcome is the answer to a command or a query, not yet encoded.
type outcome struct {
	id      string
	service service.Name
	command service.CommandID
	reply   service.Reply
	query   *service.QueryReply // in place of reply
	err     error               // in place of both
	carried *flight.Carriage
}

// outcomes is a queue of the answers on their way to the sender. It has at most one answer for each slot, and
// flight.CallBytes covers what it takes in memory. So put never waits, and a stream without commands has an
// empty queue. Many goroutines put, one takes.
type outcomes struct {
	news chan struct{} // has one while the queue is not empty

	mu   sync.Mutex // guards all below
	list []outcome
	next int // index of the first that was not taken
	over bool
}

// keptOutcomes is the capacity up to which an empty queue is kept.
const keptOutcomes = 64

func newOutcomes() *outcomes { return &outcomes{news: make(chan struct{}, 1)} }

// put queues an answer; false if answers are no longer sent.
func (q *outcomes) put(o outcome) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over {
		return false
	}
	if len(q.list) == cap(q.list) && q.next > len(q.list)/2 {
		n := copy(q.list, q.list[q.next:])
		clear(q.list[n:])
		q.list, q.next = q.list[:n], 0
	}
	q.list = append(q.list, o)
	q.tell()
	return true
}

// take takes the first answer. It is called after a receive from news.
func (q *outcomes) take() (o outcome, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == len(q.list) {
		return outcome{}, false
	}
	o, q.list[q.next] = q.list[q.next], outcome{}
	q.next++
	if q.next < len(q.list) {
		q.tell()
		return o, true
	}
	q.list, q.next = q.list[:0], 0
	if cap(q.list) > keptOutcomes {
		q.list = nil
	}
	return o, true
}

func (q *outcomes) tell() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// close makes put fail, and returns what was not taken.
func (q *outcomes) close() (left []outcome) {
	q.mu.Lock()
	defer q.mu.Unlock()
	left, q.list, q.next, q.over = q.list[q.next:], nil, 0, true
	return left
}
