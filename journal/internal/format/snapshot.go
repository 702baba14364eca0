package format

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

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
func appendSnapshot(b []byte, s *journal.Snapshot) []byte {
	w := writer{append(b, snapshotFormat, snapshotCodec)}
	w.uint(uint64(s.Version))
	w.uint(uint64(s.Schema))
	w.b = append(w.b, s.Module[:]...)
	w.bytes(s.State)
	return w.b
}

func snapshotSize(s *journal.Snapshot) int {
	return 2 + uintSize(uint64(s.Version)) + uintSize(uint64(s.Schema)) + len(s.Module) + strSize(len(s.State))
}

// readSnapshot takes a snapshot off r and reports whether it is one. The state is a view.
func readSnapshot(r *reader, s *journal.Snapshot) bool {
	head := r.take(2)
	if r.bad || head[0] != snapshotFormat || head[1] != snapshotCodec {
		return false
	}
	s.Version = journal.Version(r.uint())
	schema := r.uint()
	r.fill(s.Module[:])
	s.State = r.bytes()
	s.Schema = uint32(schema)
	return !r.bad && s.Version > 0 && schema == uint64(s.Schema) && len(s.State) <= journal.MaxSnapshot
}

// SnapshotKey is the key of the latest snapshot of an entity. The checksum of the value covers it, so a snapshot under
// the key of another entity is found to be damaged.
func SnapshotKey(log journal.LogName, key string) []byte {
	b := IndexPrefix('s', log)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	return append(b, key...)
}

// SnapshotEntity is the entity of a snapshot's key; ok is false if it is not one.
func SnapshotEntity(log journal.LogName, key []byte) (entity string, ok bool) {
	prefix := IndexPrefix('s', log)
	if len(key) < len(prefix)+2 || string(key[:len(prefix)]) != string(prefix) {
		return "", false
	}
	rest := key[len(prefix):]
	if int(binary.BigEndian.Uint16(rest)) != len(rest)-2 {
		return "", false
	}
	return string(rest[2:]), true
}

// SealSnapshot encodes a snapshot for the index.
func SealSnapshot(key []byte, s *journal.Snapshot) journal.Pair {
	b := appendSnapshot(make([]byte, 4, 4+snapshotSize(s)), s)
	binary.LittleEndian.PutUint32(b, snapshotCRC(key, b))
	return journal.Pair{Key: key, Value: b}
}

// OpenSnapshot reads what SealSnapshot made; the state is a view.
func OpenSnapshot(key, value []byte, s *journal.Snapshot) bool {
	if len(value) < 4 || binary.LittleEndian.Uint32(value) != snapshotCRC(key, value) {
		return false
	}
	r := reader{b: value[4:]}
	return readSnapshot(&r, s) && len(r.b) == 0
}

func snapshotCRC(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[4:])
}
