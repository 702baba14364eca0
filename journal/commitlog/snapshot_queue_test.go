package commitlog

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

func TestSnapshotQueueIsBounded(t *testing.T) {
	q := newSnapshotQueue(1000)
	of := func(key string, version journal.Version, size int) *held {
		return &held{entityID{"bank", key}, journal.Snapshot{Version: version, State: make([]byte, size)}}
	}
	large := of("a", 1, 5000)
	if !q.add(large) {
		t.Fatal("one by itself may be larger than the bound")
	}
	if q.add(of("b", 1, 1)) {
		t.Error("a second one beyond the bound is taken")
	}
	q.letGo(large)
	if q.bytes != 0 || len(q.latest) != 0 {
		t.Errorf("%d bytes and %d entities are left in an empty queue", q.bytes, len(q.latest))
	}

	older, newer := of("a", 1, 10), of("a", 2, 10)
	if !q.add(older) || !q.add(newer) {
		t.Fatal("there is room for two")
	}
	q.ready = append(q.ready, older, newer)
	if taken := q.take(); len(taken) != 2 || len(q.take()) != 0 {
		t.Errorf("%d are taken, want 2, once", len(taken))
	}
	if q.letGo(older); q.latest[newer.id] != newer {
		t.Error("the latest snapshot of an entity went with an older one")
	}
	if q.letGo(newer); q.bytes != 0 || len(q.latest) != 0 {
		t.Errorf("%d bytes and %d entities are left in an empty queue", q.bytes, len(q.latest))
	}
}
