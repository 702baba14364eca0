package format

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
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
	twice := AppendCommit(BeginBatch(nil, "bank"),
		&journal.Commit{Log: "bank", Command: journal.Command{ID: "c1", Key: "alice"}},
		time.Hour)
	endBatch(twice, &BatchHeader{Log: "bank", Commits: 1, First: 1, Sequence: 1})
	f.Add(twice)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, sealed := range []bool{false, true} {
			b := bytes.Clone(data)
			if sealed && len(b) >= BatchHeaderSize {
				// Past the checksum, where a forger or a bug would get to.
				copy(b, good[:5])
				b[5] &= codecS2
				b[72], b[73], b[74], b[75] = 0, 0, 0, 0
				n := len(b) - BatchHeaderSize - int(b[6]) - int(b[7])<<8
				if n < 0 {
					return
				}
				b[72], b[73], b[74], b[75] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
				crc := batchCRC(b)
				b[76], b[77], b[78], b[79] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
			}
			h, _, reason := DecodeBatch(b)
			if reason != "" {
				continue
			}
			block := journal.Block{Log: h.Log, First: h.First, Sequence: h.Sequence, Data: b}
			events := uint64(0)
			err := EachCommit(block, func(h *BatchHeader, _ int, first journal.Position, c *DecodedCommit) error {
				events += uint64(len(c.Events))
				again := journal.Commit{Log: h.Log, Command: c.Command, Expected: c.Expected, Events: c.Events}
				var back DecodedCommit
				if r := (&reader{b: AppendCommit(nil, &again, c.Again)}); !readCommit(r, uint64(len(c.Events)),
					&back) ||
					len(r.b) != 0 || back.Again != c.Again {
					t.Fatalf("%+v does not survive its own encoding", again)
				}
				return nil
			})
			if err != nil && journal.KindOf(err) != journal.KindCorrupt {
				t.Fatalf("kind %v: %v", journal.KindOf(err), err)
			}
			if err == nil && events != uint64(h.Events) {
				t.Fatalf("%d events in a batch of %d", events, h.Events)
			}
		}
	})
}

func FuzzIndexValues(f *testing.F) {
	e := journal.Event{Position: 7, Time: 8, Type: "t", ContentType: "c", CommandID: "i", CommandType: "ct",
		CommandFuel: 300,
		Metadata:    []byte("m"), Data: []byte("d"), Stamp: journal.Stamp{1, 2}}
	f.Add(EncodeIndexEvent(&e)[4:])
	f.Add(encodePlace(Place{1, 2, 3, 4})[4:])
	f.Add(EncodeCheckpoint(Checkpoint{5, 6})[4:])
	f.Add(EncodeCount(CountEntry{7, 8, 9, 10})[4:])
	f.Add(EncodeTypeEntry(&TypeEntry{11, 12, 13, 25})[4:])
	f.Fuzz(func(t *testing.T, data []byte) {
		b := sealValue(append(make([]byte, 4), data...))
		if e, ok := DecodeTypeEntry(b); ok {
			again, ok := DecodeTypeEntry(EncodeTypeEntry(&e))
			if !ok || again != e || e.Count == 0 || uint64(e.Last-e.First) < e.Count-1 {
				t.Errorf("event type %+v", e)
			}
		}
		if c, ok := DecodeCheckpoint(b); ok && !bytes.Equal(EncodeCheckpoint(c), b) {
			t.Errorf("checkpoint %+v", c)
		}
		if c, ok := DecodeCount(b); ok && !bytes.Equal(EncodeCount(c), b) {
			t.Errorf("count %+v", c)
		}
		var e journal.Event
		types := Texts{Together: len(b)%2 > 0}
		if DecodeIndexEvent(b, &e, &types) {
			var again journal.Event
			if !DecodeIndexEvent(EncodeIndexEvent(&e), &again, &types) {
				t.Errorf("event %+v", e)
			}
		}
		if p, ok := DecodePlace(b); ok {
			if again, ok := DecodePlace(encodePlace(p)); !ok || again != p {
				t.Errorf("place %+v", p)
			}
		}
		b[0] ^= 1
		if _, ok := DecodeCheckpoint(b); ok {
			t.Error("a wrong checksum passes")
		}
	})
}

// A key of the index is read back as it was written, or refused.
func FuzzIndexKeys(f *testing.F) {
	f.Add(CheckpointKey("bank"))
	f.Add(EntityKey(EntityPrefix("bank", "alice"), 7))
	f.Fuzz(func(t *testing.T, key []byte) {
		if log := CheckpointLog(key); log != "" && !bytes.Equal(CheckpointKey(log), key) {
			t.Errorf("%q is read as the checkpoint of %q", key, log)
		}
		prefix := EntityPrefix("bank", "alice")
		if v, ok := EntityVersion(prefix, append(prefix, key...)); ok &&
			!bytes.Equal(EntityKey(prefix, v), append(prefix, key...)) {
			t.Errorf("%q is read as version %d", key, v)
		}
	})
}

// keptRecords are of a retention that keeps two events of alice, one of a type of its own, behind a snapshot, and one
// of bob, in a batch behind position 49.
func keptRecords() []byte {
	alice := journal.Event{Log: "bank", Key: "alice", Version: 8, Position: 7, Time: 8, Type: "opened",
		ContentType: "application/json",
		CommandID:   "c1", CommandType: "open", CommandTime: 6, CommandFuel: 300, Metadata: []byte("m"),
		Data: []byte("d"), Stamp: journal.Stamp{1, 2}}
	records := AppendKept(nil, &alice)
	bob := alice
	bob.Key, bob.Version, bob.Position = "bob", 1, 8
	records = AppendKept(records, &bob)
	alice.Version, alice.Position, alice.Type = 9, 9, "closed"
	records = AppendKept(records, &alice)
	return AppendBase(records,
		&Base{Key: "alice", Floor: 9, Kept: 8, Snapshot: &journal.Snapshot{Version: 7, Schema: 2,
			State: []byte("state")}})
}

// Whatever the records of a base batch are, they are decoded or refused as corrupt,
// and what is decoded is what its own encoding gives again.
func FuzzBase(f *testing.F) {
	bases := AppendBase(nil,
		&Base{Key: "alice", Floor: 7, Snapshot: &journal.Snapshot{Version: 9, Schema: 2, State: []byte("state")}})
	bases = AppendBase(bases, &Base{Key: "bob", Floor: 1})
	f.Add(bases, uint8(2))
	f.Add(keptRecords(), uint8(4))
	f.Add(exampleKept(), uint8(2))
	f.Add(AppendCut(nil, &Cut{Sequence: 3, Position: 4, From: 3, Bases: 2, Origin: journal.Stamp{1},
		Before: journal.Stamp{2}}),
		uint8(1))
	f.Fuzz(func(t *testing.T, records []byte, n uint8) {
		h := BatchHeader{Log: "bank", Commits: uint32(n), First: 50, Sequence: 50, Base: true}
		b := append(BeginBatch(nil, h.Log), records...)
		endBatch(b, &h)
		var again []byte
		var types KeptTypes
		err := EachBase(journal.Block{Log: "bank", First: 50, Sequence: 50, Data: b},
			func(_ *BatchHeader, r BaseRecord) error {
				if c := r.Cut; c != nil {
					again = AppendCut(again, c)
					var back Cut
					back, ok := OpenTrim(SealTrim(c))
					if back.Bases = c.Bases; !ok || back != *c {
						t.Fatalf("%+v does not survive the index", c)
					}
					return nil
				}
				if e := r.Kept; e != nil {
					again = AppendKept(again, e)
					types.Add(e)
					if entry, ok := DecodeTypeEntry(
						types.Pair(e.Type, journal.Block{Log: "bank", Sequence: 9}).Value); !ok ||
						entry.Last != e.Position {
						t.Fatalf("the types up to %+v do not survive the index", e)
					}
					back := journal.Event{Log: e.Log, Key: e.Key, Version: e.Version}
					var names Texts
					if !DecodeIndexEvent(EncodeIndexEvent(e), &back, &names) || !reflect.DeepEqual(&back, e) {
						t.Fatalf("%+v does not survive the index", e)
					}
					prefix := KeptPrefix("bank", e.Key)
					if v, sequence, ok := ParseKeptKey(prefix, KeptKey(e, 9)); !ok || v != e.Version || sequence != 9 ||
						!bytes.HasPrefix(KeptKey(e, 9), prefix) {
						t.Fatalf("the key of %+v does not survive the index", e)
					}
					if name, sequence, ok := ParseKeptTypeKey(IndexPrefix('z', "bank"),
						KeptTypeKey("bank", e.Type, 9)); !ok || name != e.Type || sequence != 9 {
						t.Fatalf("the key of type %q does not survive the index", e.Type)
					}
					return nil
				}
				x := r.Base
				again = AppendBase(again, x)
				var back Base
				if !OpenFloor(SealFloor(x), &back) || back.Floor != x.Floor || back.Kept != x.Kept ||
					(back.Snapshot == nil) != (x.Snapshot == nil) || x.Gone() > x.Floor {
					t.Fatalf("%+v does not survive the index", x)
				}
				if key, sequence, ok := ParseFloorKey("bank", FloorKey("bank", x.Key, 9)); !ok || key != x.Key ||
					sequence != 9 {
					t.Fatalf("the key of %q does not survive the index", x.Key)
				}
				return nil
			})
		if err != nil && journal.KindOf(err) != journal.KindCorrupt {
			t.Fatalf("kind %v: %v", journal.KindOf(err), err)
		}
		if err == nil && len(again) > len(records) {
			t.Fatalf("%d bytes of records are encoded in %d", len(records), len(again))
		}
		sealed := sealValue(append(make([]byte, 4), records...))
		var x Base
		OpenFloor(sealed, &x)
		OpenTrim(sealed)
		if key, sequence, ok := ParseFloorKey("bank", records); ok &&
			!bytes.Equal(FloorKey("bank", key, sequence), records) {
			t.Fatalf("%q is read as the floor of %q", records, key)
		}
	})
}
