package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// Snapshot is an entity's state as a module encoded it, so that the events up to
// Version need not be replayed. It is derived: a module that has the same state
// schema and gets the same events makes it again.
type Snapshot struct {
	Version Version // of the entity whose state this is, above 0
	Module  Digest  // that encoded it
	Schema  uint32  // the state schema that the module's manifest declares
	State   []byte  // opaque here; of no bytes, but there, if it is empty
}

// MaxSnapshot bounds the state in a snapshot, in bytes. Bigger ones are not kept.
const MaxSnapshot = 16 << 20

// Numbers of the snapshot's encoding: part of the disk format.
const (
	snapshotFormat = 1
	snapshotCodec  = 0 // of the state: as it is
)

// appendSnapshot encodes a snapshot. It holds neither log nor key, which stand where
// it is kept, nor a checksum.
//
//	u8    1, the format
//	u8    codec of the state, 0 none
//	uint  version of the entity, above 0
//	uint  state schema, below 2^32
//	32 B  module
//	bytes state, at most 16 MiB
func appendSnapshot(b []byte, s *Snapshot) []byte {
	w := writer{append(b, snapshotFormat, snapshotCodec)}
	w.uint(uint64(s.Version))
	w.uint(uint64(s.Schema))
	w.b = append(w.b, s.Module[:]...)
	w.bytes(s.State)
	return w.b
}

func snapshotSize(s *Snapshot) int {
	return 2 + uintSize(uint64(s.Version)) + uintSize(uint64(s.Schema)) + len(s.Module) + strSize(len(s.State))
}

// readSnapshot takes a snapshot off r and reports whether it is one. The state is a view.
func readSnapshot(r *reader, s *Snapshot) bool {
	head := r.take(2)
	if r.bad || head[0] != snapshotFormat || head[1] != snapshotCodec {
		return false
	}
	s.Version = Version(r.uint())
	schema := r.uint()
	r.fill(s.Module[:])
	s.State = r.bytes()
	s.Schema = uint32(schema)
	return !r.bad && s.Version > 0 && schema == uint64(s.Schema) && len(s.State) <= MaxSnapshot
}

// A snapshot in the index stands under its log and entity, and its checksum covers
// that key too: a state that has got to another entity is no state.

func snapshotKey(log LogName, key string) []byte {
	b := indexPrefix('s', log)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	return append(b, key...)
}

// snapshotEntity is the entity of a snapshot's key; ok is false if it is not one.
func snapshotEntity(log LogName, key []byte) (entity string, ok bool) {
	prefix := indexPrefix('s', log)
	if len(key) < len(prefix)+2 || string(key[:len(prefix)]) != string(prefix) {
		return "", false
	}
	rest := key[len(prefix):]
	if int(binary.BigEndian.Uint16(rest)) != len(rest)-2 {
		return "", false
	}
	return string(rest[2:]), true
}

func sealSnapshot(key []byte, s *Snapshot) Pair {
	b := appendSnapshot(make([]byte, 4, 4+snapshotSize(s)), s)
	binary.LittleEndian.PutUint32(b, snapshotCRC(key, b))
	return Pair{key, b}
}

// openSnapshot reads what sealSnapshot made; the state is a view.
func openSnapshot(key, value []byte, s *Snapshot) bool {
	if len(value) < 4 || binary.LittleEndian.Uint32(value) != snapshotCRC(key, value) {
		return false
	}
	r := reader{b: value[4:]}
	return readSnapshot(&r, s) && len(r.b) == 0
}

func snapshotCRC(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[4:])
}
