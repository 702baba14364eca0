package streams

import (
	"fmt"
	"sync"
	"testing"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Every answer that is put comes once, and those of one goroutine in their order. An empty queue is small.
func TestOutcomes(t *testing.T) {
	const senders, each = 8, 500
	q := newOutcomes()
	var sending sync.WaitGroup
	for n := range senders {
		sending.Go(func() {
			for i := range each {
				if !q.put(outcome{id: fmt.Sprint(n), reply: service.Reply{Position: service.Position(i)}}) {
					t.Error("a queue that is open takes nothing")
				}
			}
		})
	}
	next := map[string]int{}
	for range senders * each {
		<-q.news
		o, ok := q.take()
		if !ok || int(o.reply.Position) != next[o.id] {
			t.Fatalf("%v: answer %d of %s, want %d", ok, o.reply.Position, o.id, next[o.id])
		}
		next[o.id]++
	}
	sending.Wait()
	if _, ok := q.take(); ok || len(q.news) > 0 || cap(q.list) > keptOutcomes {
		t.Errorf("an empty queue has something, or room for %d", cap(q.list))
	}
	q.put(outcome{id: "left"})
	if left := q.close(); len(left) != 1 || left[0].id != "left" || q.put(outcome{}) {
		t.Errorf("closed with %+v, and it still takes some", left)
	}
	if size := unsafe.Sizeof(outcome{}); 3*size > flight.CallBytes {
		t.Errorf("an answer in a queue that grows takes up to %d bytes, which is not within a call's %d", 3*size,
			flight.CallBytes)
	}
}
