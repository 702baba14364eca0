package format

import (
	"bytes"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

func exampleSnapshot() *journal.Snapshot {
	return &journal.Snapshot{Version: 300, Module: journal.Digest{0xd1, 31: 0x9e}, Schema: 2, State: []byte(`{"balance":70}`)}
}

// Whatever the bytes are, they are a snapshot or none, and one survives its own
// encoding.
func FuzzSnapshot(f *testing.F) {
	f.Add(appendSnapshot(nil, exampleSnapshot()))
	f.Add(appendSnapshot(nil, &journal.Snapshot{Version: 1, State: []byte{}}))
	f.Add([]byte{snapshotFormat, snapshotCodec, 0xff, 0xff, 0xff, 0xff, 0x10})
	f.Fuzz(func(t *testing.T, data []byte) {
		var s, again journal.Snapshot
		r := reader{b: data}
		if !readSnapshot(&r, &s) {
			return
		}
		b := appendSnapshot(nil, &s)
		if len(b) != snapshotSize(&s) {
			t.Errorf("%d bytes, foretold were %d", len(b), snapshotSize(&s))
		}
		r = reader{b: b}
		if !readSnapshot(&r, &again) || len(r.b) != 0 || again.Version != s.Version || again.Schema != s.Schema ||
			again.Module != s.Module || !bytes.Equal(again.State, s.State) || again.State == nil {
			t.Errorf("%+v does not survive its own encoding: %+v", s, again)
		}
	})
}

// FuzzSnapshotKey reads a key of the index back as it was written, or refuses it.
func FuzzSnapshotKey(f *testing.F) {
	f.Add(SnapshotKey("bank", "alice"))
	f.Add(SnapshotKey("ban", "k"))
	f.Fuzz(func(t *testing.T, key []byte) {
		if entity, ok := SnapshotEntity("bank", key); ok && !bytes.Equal(SnapshotKey("bank", entity), key) {
			t.Errorf("%q is read as the snapshot of %q", key, entity)
		}
	})
}

// Each bit of a stored snapshot, and of the key it stands under, is under its
// checksum.
func TestSnapshotIsSealed(t *testing.T) {
	key := SnapshotKey("bank", "alice")
	p := SealSnapshot(key, exampleSnapshot())
	var s journal.Snapshot
	if !OpenSnapshot(p.Key, p.Value, &s) || string(s.State) != `{"balance":70}` || s.Version != 300 || s.Schema != 2 || s.Module != (journal.Digest{0xd1, 31: 0x9e}) {
		t.Fatalf("read back as %+v", s)
	}
	for _, b := range [][]byte{p.Key, p.Value} {
		for bit := range 8 * len(b) {
			b[bit/8] ^= 1 << (bit % 8)
			if OpenSnapshot(p.Key, p.Value, &s) {
				t.Errorf("bit %d is flipped, and it passes", bit)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
	for n := range p.Value {
		if OpenSnapshot(p.Key, p.Value[:n], &s) {
			t.Errorf("the first %d bytes of it pass", n)
		}
	}
	for _, bad := range []journal.Snapshot{{State: []byte{}},
		{Version: 1, State: make([]byte, journal.MaxSnapshot+1)}} {
		if q := SealSnapshot(key, &bad); OpenSnapshot(q.Key, q.Value, &s) {
			t.Errorf("one of version %d with %d bytes passes", bad.Version, len(bad.State))
		}
	}
}
