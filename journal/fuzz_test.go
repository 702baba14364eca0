package journal

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

func init() { scribble = true }

// Whatever a block's bytes are, they are decoded or refused as corrupt, and what is
// decoded is what its own encoding gives again.
func FuzzBatch(f *testing.F) {
	good := exampleBatch()
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(batchMagic))
	f.Add(packedBatch(1))
	f.Add(packedBatch(100))
	twice := appendCommit(beginBatch(nil, "bank"), &Commit{Log: "bank", Command: Command{ID: "c1", Key: "alice"}},
		time.Hour)
	endBatch(twice, &batchHeader{log: "bank", commits: 1, first: 1, sequence: 1})
	f.Add(twice)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, sealed := range []bool{false, true} {
			b := bytes.Clone(data)
			if sealed && len(b) >= batchHeaderSize {
				// Past the checksum, where a forger or a bug would get to.
				copy(b, good[:5])
				b[5] &= codecS2
				b[72], b[73], b[74], b[75] = 0, 0, 0, 0
				n := len(b) - batchHeaderSize - int(b[6]) - int(b[7])<<8
				if n < 0 {
					return
				}
				b[72], b[73], b[74], b[75] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
				crc := batchCRC(b)
				b[76], b[77], b[78], b[79] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
			}
			h, _, reason := decodeBatch(b)
			if reason != "" {
				continue
			}
			block := Block{h.log, h.first, h.sequence, b}
			events := uint64(0)
			err := eachCommit(block, func(h *batchHeader, _ int, first Position, c *decodedCommit) error {
				events += uint64(len(c.events))
				again := Commit{Log: h.log, Command: c.command, Expected: c.expected, Events: c.events}
				var back decodedCommit
				if r := (&reader{b: appendCommit(nil, &again, c.again)}); !readCommit(r, uint64(len(c.events)),
					&back) ||
					len(r.b) != 0 || back.again != c.again {
					t.Fatalf("%+v does not survive its own encoding", again)
				}
				return nil
			})
			if err != nil && KindOf(err) != KindCorrupt {
				t.Fatalf("kind %v: %v", KindOf(err), err)
			}
			if err == nil && events != uint64(h.events) {
				t.Fatalf("%d events in a batch of %d", events, h.events)
			}
		}
	})
}

func FuzzIndexValues(f *testing.F) {
	e := Event{Position: 7, Time: 8, Type: "t", ContentType: "c", CommandID: "i", CommandType: "ct", CommandFuel: 300,
		Metadata: []byte("m"), Data: []byte("d"), Stamp: Stamp{1, 2}}
	f.Add(encodeIndexEvent(&e)[4:])
	f.Add(encodePlace(place{1, 2, 3, 4})[4:])
	f.Add(encodeCheckpoint(checkpoint{5, 6})[4:])
	f.Add(encodeCount(countEntry{7, 8, 9, 10})[4:])
	f.Add(encodeTypeEntry(&typeEntry{11, 12, 13, 25})[4:])
	f.Fuzz(func(t *testing.T, data []byte) {
		b := sealValue(append(make([]byte, 4), data...))
		if e, ok := decodeTypeEntry(b); ok {
			again, ok := decodeTypeEntry(encodeTypeEntry(&e))
			if !ok || again != e || e.count == 0 || uint64(e.last-e.first) < e.count-1 {
				t.Errorf("event type %+v", e)
			}
		}
		if c, ok := decodeCheckpoint(b); ok && !bytes.Equal(encodeCheckpoint(c), b) {
			t.Errorf("checkpoint %+v", c)
		}
		if c, ok := decodeCount(b); ok && !bytes.Equal(encodeCount(c), b) {
			t.Errorf("count %+v", c)
		}
		var e Event
		types := texts{together: len(b)%2 > 0}
		if decodeIndexEvent(b, &e, &types) {
			var again Event
			if !decodeIndexEvent(encodeIndexEvent(&e), &again, &types) {
				t.Errorf("event %+v", e)
			}
		}
		if p, ok := decodePlace(b); ok {
			if again, ok := decodePlace(encodePlace(p)); !ok || again != p {
				t.Errorf("place %+v", p)
			}
		}
		b[0] ^= 1
		if _, ok := decodeCheckpoint(b); ok {
			t.Error("a wrong checksum passes")
		}
	})
}

// A key of the index is read back as it was written, or refused.
func FuzzIndexKeys(f *testing.F) {
	f.Add(checkpointKey("bank"))
	f.Add(entityKey(entityPrefix("bank", "alice"), 7))
	f.Fuzz(func(t *testing.T, key []byte) {
		if log := checkpointLog(key); log != "" && !bytes.Equal(checkpointKey(log), key) {
			t.Errorf("%q is read as the checkpoint of %q", key, log)
		}
		prefix := entityPrefix("bank", "alice")
		if v, ok := entityVersion(prefix, append(prefix, key...)); ok &&
			!bytes.Equal(entityKey(prefix, v), append(prefix, key...)) {
			t.Errorf("%q is read as version %d", key, v)
		}
	})
}

// keptRecords are of a retention that keeps two events of alice, one of a type of its own, behind a snapshot, and one
// of bob, in a batch behind position 49.
func keptRecords() []byte {
	alice := Event{Log: "bank", Key: "alice", Version: 8, Position: 7, Time: 8, Type: "opened",
		ContentType: "application/json",
		CommandID:   "c1", CommandType: "open", CommandTime: 6, CommandFuel: 300, Metadata: []byte("m"),
		Data: []byte("d"), Stamp: Stamp{1, 2}}
	records := appendKept(nil, &alice)
	bob := alice
	bob.Key, bob.Version, bob.Position = "bob", 1, 8
	records = appendKept(records, &bob)
	alice.Version, alice.Position, alice.Type = 9, 9, "closed"
	records = appendKept(records, &alice)
	return appendBase(records,
		&base{key: "alice", floor: 9, kept: 8, snapshot: &Snapshot{Version: 7, Schema: 2, State: []byte("state")}})
}

// Whatever the records of a base batch are, they are decoded or refused as corrupt,
// and what is decoded is what its own encoding gives again.
func FuzzBase(f *testing.F) {
	bases := appendBase(nil,
		&base{key: "alice", floor: 7, snapshot: &Snapshot{Version: 9, Schema: 2, State: []byte("state")}})
	bases = appendBase(bases, &base{key: "bob", floor: 1})
	f.Add(bases, uint8(2))
	f.Add(keptRecords(), uint8(4))
	f.Add(exampleKept(), uint8(2))
	f.Add(appendCut(nil, &cut{sequence: 3, position: 4, from: 3, bases: 2, origin: Stamp{1}, before: Stamp{2}}),
		uint8(1))
	f.Fuzz(func(t *testing.T, records []byte, n uint8) {
		h := batchHeader{log: "bank", commits: uint32(n), first: 50, sequence: 50, base: true}
		b := append(beginBatch(nil, h.log), records...)
		endBatch(b, &h)
		var again []byte
		var types keptTypes
		err := eachBase(Block{"bank", 50, 50, b}, func(_ *batchHeader, r baseRecord) error {
			if c := r.cut; c != nil {
				again = appendCut(again, c)
				var back cut
				back, ok := openTrim(sealTrim(c))
				if back.bases = c.bases; !ok || back != *c {
					t.Fatalf("%+v does not survive the index", c)
				}
				return nil
			}
			if e := r.kept; e != nil {
				again = appendKept(again, e)
				types.add(e)
				if entry, ok := decodeTypeEntry(types.pair(e.Type, Block{Log: "bank", Sequence: 9}).Value); !ok ||
					entry.last != e.Position {
					t.Fatalf("the types up to %+v do not survive the index", e)
				}
				back := Event{Log: e.Log, Key: e.Key, Version: e.Version}
				var names texts
				if !decodeIndexEvent(encodeIndexEvent(e), &back, &names) || !reflect.DeepEqual(&back, e) {
					t.Fatalf("%+v does not survive the index", e)
				}
				prefix := keptPrefix("bank", e.Key)
				if v, sequence, ok := parseKeptKey(prefix, keptKey(e, 9)); !ok || v != e.Version || sequence != 9 ||
					!bytes.HasPrefix(keptKey(e, 9), prefix) {
					t.Fatalf("the key of %+v does not survive the index", e)
				}
				if name, sequence, ok := parseKeptTypeKey(indexPrefix('z', "bank"),
					keptTypeKey("bank", e.Type, 9)); !ok || name != e.Type || sequence != 9 {
					t.Fatalf("the key of type %q does not survive the index", e.Type)
				}
				return nil
			}
			x := r.base
			again = appendBase(again, x)
			var back base
			if !openFloor(sealFloor(x), &back) || back.floor != x.floor || back.kept != x.kept ||
				(back.snapshot == nil) != (x.snapshot == nil) || x.gone() > x.floor {
				t.Fatalf("%+v does not survive the index", x)
			}
			if key, sequence, ok := parseFloorKey("bank", floorKey("bank", x.key, 9)); !ok || key != x.key ||
				sequence != 9 {
				t.Fatalf("the key of %q does not survive the index", x.key)
			}
			return nil
		})
		if err != nil && KindOf(err) != KindCorrupt {
			t.Fatalf("kind %v: %v", KindOf(err), err)
		}
		if err == nil && len(again) > len(records) {
			t.Fatalf("%d bytes of records are encoded in %d", len(records), len(again))
		}
		sealed := sealValue(append(make([]byte, 4), records...))
		var x base
		openFloor(sealed, &x)
		openTrim(sealed)
		if key, sequence, ok := parseFloorKey("bank", records); ok &&
			!bytes.Equal(floorKey("bank", key, sequence), records) {
			t.Fatalf("%q is read as the floor of %q", records, key)
		}
	})
}
