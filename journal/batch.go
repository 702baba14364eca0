package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
)

// The header of a batch: part of the disk format.
//
//	offset  size  field
//	0       4     magic "BHJ\x01"
//	4       1     format version: 1, or 2 for a base batch, see base.go
//	5       1     codec of the body: 0 none
//	6       2     length of the log's name
//	8       4     number of commits; of a base batch, of records
//	12      4     number of events; of a base batch 0
//	16      8     position of the first event
//	24      8     sequence of the batch in its log, from 1
//	32      8     time of writing, nanoseconds since the Unix epoch
//	40      32    SHA-256 of the whole previous batch of the log, zeros in the first
//	72      4     length of the body
//	76      4     CRC-32C of everything but this field
//	80      …     name of the log
//	…       …     body: the records of the commits, one commit after the other
//
// Integers are little-endian.
const (
	batchMagic      = "BHJ\x01"
	batchVersion    = 1
	baseVersion     = 2
	batchHeaderSize = 80
	codecNone       = 0
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chainHash is the SHA-256 of a batch, which the next one of its log carries.
type chainHash [sha256.Size]byte

// batchHeader is a decoded header.
type batchHeader struct {
	log      LogName
	commits  uint32
	events   uint32
	first    Position
	sequence uint64
	time     UnixNano
	previous chainHash
	base     bool // its records are of a retention, and commits counts them
}

// beginBatch appends room for the header and the log's name.
func beginBatch(b []byte, log LogName) []byte {
	b = append(b, make([]byte, batchHeaderSize)...)
	return append(b, log...)
}

// endBatch fills in the header of a batch that fills b.
func endBatch(b []byte, h *batchHeader) chainHash {
	copy(b, batchMagic)
	b[4], b[5] = batchVersion, codecNone
	if h.base {
		b[4] = baseVersion
	}
	le := binary.LittleEndian
	le.PutUint16(b[6:], uint16(len(h.log)))
	le.PutUint32(b[8:], h.commits)
	le.PutUint32(b[12:], h.events)
	le.PutUint64(b[16:], uint64(h.first))
	le.PutUint64(b[24:], h.sequence)
	le.PutUint64(b[32:], uint64(h.time))
	copy(b[40:72], h.previous[:])
	le.PutUint32(b[72:], uint32(len(b)-batchHeaderSize-len(h.log)))
	le.PutUint32(b[76:], batchCRC(b))
	return sha256.Sum256(b)
}

func batchCRC(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:76], castagnoli), castagnoli, b[batchHeaderSize:])
}

// decodeBatch checks a batch and returns its header and a reader of its body.
// reason is empty if it is good.
func decodeBatch(b []byte) (h batchHeader, body reader, reason string) {
	le := binary.LittleEndian
	switch {
	case len(b) < batchHeaderSize:
		return h, body, "the batch is shorter than its header"
	case string(b[:4]) != batchMagic:
		return h, body, "the batch does not start with its magic"
	case b[4] != batchVersion && b[4] != baseVersion:
		return h, body, "the batch has a format version this program does not know"
	case b[5] != codecNone:
		return h, body, "the batch has a codec this program does not know"
	}
	name := int(le.Uint16(b[6:]))
	if uint64(name)+uint64(le.Uint32(b[72:])) != uint64(len(b)-batchHeaderSize) {
		return h, body, "the batch's length is not what its header says"
	}
	if batchCRC(b) != le.Uint32(b[76:]) {
		return h, body, "the batch's checksum is wrong"
	}
	h = batchHeader{
		log:      LogName(b[batchHeaderSize : batchHeaderSize+name]),
		commits:  le.Uint32(b[8:]),
		events:   le.Uint32(b[12:]),
		first:    Position(le.Uint64(b[16:])),
		sequence: le.Uint64(b[24:]),
		time:     UnixNano(le.Uint64(b[32:])),
		previous: chainHash(b[40:72]),
		base:     b[4] == baseVersion,
	}
	if h.base && h.events != 0 {
		return h, body, "a base batch claims events"
	}
	if h.commits == 0 || h.first == 0 || h.sequence == 0 {
		return h, body, "the batch's header counts from 0 what counts from 1"
	}
	return h, reader{b: b[batchHeaderSize+name:]}, ""
}

// eachCommit decodes a block and yields its commits in order, each with the
// position of its first event and its ordinal in the batch. The decoded commit is
// valid during its yield only. A base batch has none.
func eachCommit(block Block, yield func(h *batchHeader, ordinal int, first Position, c *decodedCommit) error) error {
	h, body, reason := decodeBatch(block.Data)
	if reason == "" && (h.log != block.Log || h.first != block.First || h.sequence != block.Sequence) {
		reason = "the batch belongs to another place of the journal"
	}
	corrupt := func(reason string) error {
		return errorf(KindCorrupt, "read", block.Log, "batch %d at position %d: %s", block.Sequence, block.First, reason)
	}
	if reason != "" {
		return corrupt(reason)
	}
	if h.base {
		return eachBase(block, func(*batchHeader, *base, *cut) error { return nil })
	}
	var c decodedCommit
	left, at := uint64(h.events), h.first
	for i := range int(h.commits) {
		if !readCommit(&body, left, &c) {
			return corrupt("a record is malformed")
		}
		left -= uint64(len(c.events))
		if err := yield(&h, i, at, &c); err != nil {
			return err
		}
		at += Position(len(c.events))
	}
	if left != 0 || len(body.b) != 0 {
		return corrupt("the records do not fill the batch")
	}
	return nil
}

// event fills in the i-th event of a commit, with views into the batch.
func (c *decodedCommit) event(h *batchHeader, first Position, i int) Event {
	e := &c.events[i]
	return Event{
		Log: h.log, Position: first + Position(i), Key: c.command.Key,
		Version: c.expected + Version(i) + 1, Type: e.Type, ContentType: contentType(e.ContentType),
		Data: e.Data, Metadata: e.Metadata,
		CommandID: c.command.ID, CommandType: c.command.Type, CommandTime: c.command.Time, Time: h.time,
	}
}

func contentType(s string) string {
	if s == "" {
		return "application/json"
	}
	return s
}
