package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal/internal/pack"
)

// The header of a batch: part of the disk format.
//
//	offset  size  field
//	0       4     magic "BHJ\x01"
//	4       1     format version: 1, or 2 for a base batch, see base.go
//	5       1     codec of the body: 0 none, 2 S2; 1 is kept for zstd
//	6       2     length of the log's name
//	8       4     number of commits; of a base batch, of records
//	12      4     number of events; of a base batch 0
//	16      8     position of the first event
//	24      8     sequence of the batch in its log, from 1
//	32      8     time of writing, nanoseconds since the Unix epoch
//	40      32    SHA-256 of the whole previous batch of the log, zeros in the first
//	72      4     length of the body as it stands here
//	76      4     CRC-32C of everything but this field
//	80      …     name of the log
//	…       …     body: the records of the commits, one commit after the other, packed by the codec
//
// Integers are little-endian.
const (
	batchMagic      = "BHJ\x01"
	batchVersion    = 1
	baseVersion     = 2
	batchHeaderSize = 80
	codecNone       = 0
	codecS2         = 2
	// packMost bounds what a packed body may be unpacked, in bytes, so that a forged one makes us allocate no
	// more than one of that length that is not packed. A longer one is never packed. It is a part of the format, too.
	packMost = 4 << 20
)

// Codec is how records are packed when they are written. Reading finds out by itself.
type Codec string

const (
	CodecS2   Codec = "s2"   // S2, where that saves more than an eighth
	CodecNone Codec = "none" // as they are
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
	base     bool      // its records are of a retention, and commits counts them
	codec    byte      // of the body
	records  int       // length of the body without the codec; decoding knows it when that is unpacked
	whole    []byte    // the batch as it was decoded, a view
	hash     chainHash // of whole, once somebody wanted it
}

// stamp is that of a decoded batch, which is hashed when it is first asked for.
func (h *batchHeader) stamp() Stamp {
	if h.hash == (chainHash{}) {
		h.hash = hashOf(h.whole)
	}
	return h.hash.stamp()
}

// stampAt is that of the batch if it has the event at a position, else zero.
func (h *batchHeader) stampAt(p Position) Stamp {
	if p < h.first {
		return Stamp{}
	}
	return h.stamp()
}

func (c *chainHash) stamp() Stamp { return Stamp(c[:8]) }

// beginBatch appends room for the header and the log's name.
func beginBatch(b []byte, log LogName) []byte {
	b = append(b, make([]byte, batchHeaderSize)...)
	return append(b, log...)
}

// endBatch fills in the header of a batch that fills b.
func endBatch(b []byte, h *batchHeader) chainHash {
	copy(b, batchMagic)
	b[4], b[5] = batchVersion, h.codec
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
	return hashOf(b)
}

func batchCRC(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:76], castagnoli), castagnoli, b[batchHeaderSize:])
}

// decodeBatch checks a batch and returns its header and its body, which may be packed, as a view.
// reason is empty if it is good.
func decodeBatch(b []byte) (h batchHeader, body []byte, reason string) {
	le := binary.LittleEndian
	switch {
	case len(b) < batchHeaderSize:
		return h, body, "the batch is shorter than its header"
	case string(b[:4]) != batchMagic:
		return h, body, "the batch does not start with its magic"
	case b[4] != batchVersion && b[4] != baseVersion:
		return h, body, "the batch has a format version this program does not know"
	case b[5] != codecNone && b[5] != codecS2:
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
		codec:    b[5],
		whole:    b,
	}
	if h.base && h.events != 0 {
		return h, body, "a base batch claims events"
	}
	if h.commits == 0 || h.first == 0 || h.sequence == 0 {
		return h, body, "the batch's header counts from 0 what counts from 1"
	}
	return h, b[batchHeaderSize+name:], ""
}

// room is memory that bodies are unpacked into.
type room struct{ b []byte }

var rooms = sync.Pool{New: func() any { return new(room) }}

// scribble has memory that is given back overwritten, so that tests see who kept a view of it.
var scribble bool

func (r *room) release() {
	const most = 1 << 20
	if scribble {
		for i := range r.b[:cap(r.b)] {
			r.b[:cap(r.b)][i] = 0xdb
		}
	}
	if cap(r.b) <= most {
		rooms.Put(r)
	}
}

// unpack returns a reader of a body, which is a view of that or of r.
func (h *batchHeader) unpack(body []byte, r *room) (_ reader, reason string) {
	if h.codec == codecS2 {
		raw, err := pack.Unpack(r.b, body, packMost)
		if err != nil {
			return reader{}, "its records cannot be unpacked: " + err.Error()
		}
		r.b, body = raw, raw
	}
	h.records = len(body)
	return reader{b: body}, ""
}

// openBlock decodes a block, whose batch must be the one that the block names, as decodeBatch does.
func openBlock(b *Block) (h batchHeader, body []byte, err error) {
	h, body, reason := decodeBatch(b.Data)
	if reason == "" && (h.log != b.Log || h.first != b.First || h.sequence != b.Sequence) {
		reason = "the batch belongs to another place of the journal"
	}
	if reason != "" {
		err = damagedBlock(b, reason)
	}
	return h, body, err
}

func damagedBlock(b *Block, reason string) error {
	return errorf(KindCorrupt, "read", b.Log, "batch %d at position %d: %s", b.Sequence, b.First, reason)
}

// Unpacked returns a batch as it would be if its records were not packed: what the codec saves is the
// difference. A batch that is damaged is an error of kind KindCorrupt.
func Unpacked(batch []byte) ([]byte, error) {
	h, body, reason := decodeBatch(batch)
	var into room
	var records reader
	if reason == "" {
		records, reason = h.unpack(body, &into)
	}
	if reason != "" {
		return nil, errorf(KindCorrupt, "read", h.log, "%s", reason)
	}
	h.codec = codecNone
	out := append(beginBatch(make([]byte, 0, batchHeaderSize+len(h.log)+len(records.b)), h.log), records.b...)
	endBatch(out, &h)
	return out, nil
}

type (
	commitYield = func(h *batchHeader, ordinal int, first Position, c *decodedCommit) error
	baseYield   = func(h *batchHeader, r baseRecord) error
)

// eachCommit decodes a block and yields its commits in order, each with the
// position of its first event and its ordinal in the batch. The decoded commit is
// valid during its yield only. A base batch has none.
func eachCommit(block Block, yield commitYield) error {
	return eachRecord(block, yield, func(*batchHeader, baseRecord) error { return nil })
}

// eachRecord yields the commits of a block as eachCommit does, or the records of a base batch as eachBase
// does, but none of a base batch with damage.
func eachRecord(block Block, commit commitYield, ofBase baseYield) error {
	h, packed, err := openBlock(&block)
	if err != nil {
		return err
	}
	return eachOpened(&block, h, packed, commit, ofBase)
}

// eachOpened is eachRecord for a block that openBlock has opened.
func eachOpened(b *Block, h batchHeader, packed []byte, commit commitYield, ofBase baseYield) error {
	return unpackBlock(b, &h, packed, func(body reader) error {
		if !h.base {
			return readCommits(b, &h, body, commit)
		}
		if err := readBases(b, &h, body, func(*batchHeader, baseRecord) error { return nil }); err != nil {
			return err
		}
		return readBases(b, &h, body, ofBase)
	})
}

// unpackBlock calls f with the records of a block that openBlock has opened. They are valid during the call only.
func unpackBlock(b *Block, h *batchHeader, packed []byte, f func(body reader) error) error {
	into := rooms.Get().(*room)
	defer into.release()
	body, reason := h.unpack(packed, into)
	if reason != "" {
		return damagedBlock(b, reason)
	}
	return f(body)
}

func readCommits(b *Block, h *batchHeader, body reader, yield commitYield) error {
	var c decodedCommit
	left, at := uint64(h.events), h.first
	for i := range int(h.commits) {
		if !readCommit(&body, left, &c) {
			return damagedBlock(b, "a record is malformed")
		}
		left -= uint64(len(c.events))
		if err := yield(h, i, at, &c); err != nil {
			return err
		}
		at += Position(len(c.events))
	}
	if left != 0 || len(body.b) != 0 {
		return damagedBlock(b, "the records do not fill the batch")
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
		CommandID: c.command.ID, CommandType: c.command.Type, CommandTime: c.command.Time, CommandFuel: c.command.Fuel,
		Time: h.time, Stamp: h.stamp(),
	}
}

func contentType(s string) string {
	if s == "" {
		return "application/json"
	}
	return s
}
