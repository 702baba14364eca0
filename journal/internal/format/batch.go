package format

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
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
	BatchHeaderSize = 80
	codecNone       = 0
	codecS2         = 2
	// MaxPacked bounds what a packed body may be unpacked, in bytes, so that a forged one makes us allocate no
	// more than one of that length that is not packed. A longer one is never packed. It is a part of the format, too.
	MaxPacked = 4 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ChainHash is the SHA-256 of a batch, which the next one of its log carries.
type ChainHash [sha256.Size]byte

// BatchHeader is a decoded header.
type BatchHeader struct {
	Log      journal.LogName
	Commits  uint32
	Events   uint32
	First    journal.Position
	Sequence uint64
	Time     journal.UnixNano
	Previous ChainHash
	Base     bool      // its records are of a retention, and commits counts them
	codec    byte      // of the body
	Records  int       // length of the body without the codec; decoding knows it when that is unpacked
	Whole    []byte    // the batch as it was decoded, a view
	Hash     ChainHash // of whole, once somebody wanted it
}

// Stamp is that of a decoded batch, which is hashed when it is first asked for.
func (h *BatchHeader) Stamp() journal.Stamp {
	if h.Hash == (ChainHash{}) {
		h.Hash = HashOf(h.Whole)
	}
	return h.Hash.Stamp()
}

// stampAt is that of the batch if it has the event at a position, else zero.
func (h *BatchHeader) stampAt(p journal.Position) journal.Stamp {
	if p < h.First {
		return journal.Stamp{}
	}
	return h.Stamp()
}

// Stamp is what cursors carry of a batch's hash.
func (c *ChainHash) Stamp() journal.Stamp { return journal.Stamp(c[:8]) }

// BeginBatch appends room for the header and the log's name.
func BeginBatch(b []byte, log journal.LogName) []byte {
	b = append(b, make([]byte, BatchHeaderSize)...)
	return append(b, log...)
}

// endBatch fills in the header of a batch that fills b.
func endBatch(b []byte, h *BatchHeader) ChainHash {
	copy(b, batchMagic)
	b[4], b[5] = batchVersion, h.codec
	if h.Base {
		b[4] = baseVersion
	}
	le := binary.LittleEndian
	le.PutUint16(b[6:], uint16(len(h.Log)))
	le.PutUint32(b[8:], h.Commits)
	le.PutUint32(b[12:], h.Events)
	le.PutUint64(b[16:], uint64(h.First))
	le.PutUint64(b[24:], h.Sequence)
	le.PutUint64(b[32:], uint64(h.Time))
	copy(b[40:72], h.Previous[:])
	le.PutUint32(b[72:], uint32(len(b)-BatchHeaderSize-len(h.Log)))
	le.PutUint32(b[76:], batchCRC(b))
	return HashOf(b)
}

func batchCRC(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:76], castagnoli), castagnoli, b[BatchHeaderSize:])
}

// DecodeBatch checks a batch and returns its header and its body, which may be packed, as a view.
// reason is empty if it is good.
func DecodeBatch(b []byte) (h BatchHeader, body []byte, reason string) {
	le := binary.LittleEndian
	switch {
	case len(b) < BatchHeaderSize:
		return h, body, "the batch is shorter than its header"
	case string(b[:4]) != batchMagic:
		return h, body, "the batch does not start with its magic"
	case b[4] != batchVersion && b[4] != baseVersion:
		return h, body, "the batch has a format version this program does not know"
	case b[5] != codecNone && b[5] != codecS2:
		return h, body, "the batch has a codec this program does not know"
	}
	name := int(le.Uint16(b[6:]))
	if uint64(name)+uint64(le.Uint32(b[72:])) != uint64(len(b)-BatchHeaderSize) {
		return h, body, "the batch's length is not what its header says"
	}
	if batchCRC(b) != le.Uint32(b[76:]) {
		return h, body, "the batch's checksum is wrong"
	}
	h = BatchHeader{
		Log:      journal.LogName(b[BatchHeaderSize : BatchHeaderSize+name]),
		Commits:  le.Uint32(b[8:]),
		Events:   le.Uint32(b[12:]),
		First:    journal.Position(le.Uint64(b[16:])),
		Sequence: le.Uint64(b[24:]),
		Time:     journal.UnixNano(le.Uint64(b[32:])),
		Previous: ChainHash(b[40:72]),
		Base:     b[4] == baseVersion,
		codec:    b[5],
		Whole:    b,
	}
	if h.Base && h.Events != 0 {
		return h, body, "a base batch claims events"
	}
	if h.Commits == 0 || h.First == 0 || h.Sequence == 0 {
		return h, body, "the batch's header counts from 0 what counts from 1"
	}
	return h, b[BatchHeaderSize+name:], ""
}

// Buffer is memory that bodies are unpacked into.
type Buffer struct{ B []byte }

// Buffers are used again; see Buffer.Release.
var Buffers = sync.Pool{New: func() any { return new(Buffer) }}

// scribble has memory that is given back overwritten, so that tests see who kept a view of it.
var scribble bool

// Release gives a buffer back, unless it has become large.
func (r *Buffer) Release() {
	const most = 1 << 20
	if scribble {
		for i := range r.B[:cap(r.B)] {
			r.B[:cap(r.B)][i] = 0xdb
		}
	}
	if cap(r.B) <= most {
		Buffers.Put(r)
	}
}

// unpack returns a reader of a body, which is a view of that or of r.
func (h *BatchHeader) unpack(body []byte, r *Buffer) (_ reader, reason string) {
	if h.codec == codecS2 {
		raw, err := pack.Unpack(r.B, body, MaxPacked)
		if err != nil {
			return reader{}, "its records cannot be unpacked: " + err.Error()
		}
		r.B, body = raw, raw
	}
	h.Records = len(body)
	return reader{b: body}, ""
}

// OpenBlock decodes a block, whose batch must be the one that the block names, as DecodeBatch does.
func OpenBlock(b *journal.Block) (h BatchHeader, body []byte, err error) {
	h, body, reason := DecodeBatch(b.Data)
	if reason == "" && (h.Log != b.Log || h.First != b.First || h.Sequence != b.Sequence) {
		reason = "the batch belongs to another place of the journal"
	}
	if reason != "" {
		err = damagedBlock(b, reason)
	}
	return h, body, err
}

func damagedBlock(b *journal.Block, reason string) error {
	return journal.Errorf(journal.KindCorrupt, "read", b.Log, "batch %d at position %d: %s", b.Sequence, b.First,
		reason)
}

// Unpacked returns a batch as it would be if its records were not packed: what the codec saves is the
// difference. A batch that is damaged is an error of kind KindCorrupt.
func Unpacked(batch []byte) ([]byte, error) {
	h, body, reason := DecodeBatch(batch)
	var into Buffer
	var records reader
	if reason == "" {
		records, reason = h.unpack(body, &into)
	}
	if reason != "" {
		return nil, journal.Errorf(journal.KindCorrupt, "read", h.Log, "%s", reason)
	}
	h.codec = codecNone
	out := append(BeginBatch(make([]byte, 0, BatchHeaderSize+len(h.Log)+len(records.b)), h.Log), records.b...)
	endBatch(out, &h)
	return out, nil
}

type (
	commitYield = func(h *BatchHeader, ordinal int, first journal.Position, c *DecodedCommit) error
	BaseYield   = func(h *BatchHeader, r BaseRecord) error
)

// EachCommit decodes a block and yields its commits in order, each with the
// position of its first event and its ordinal in the batch. The decoded commit is
// valid during its yield only. A base batch has none.
func EachCommit(block journal.Block, yield commitYield) error {
	return EachRecord(block, yield, func(*BatchHeader, BaseRecord) error { return nil })
}

// EachRecord yields the commits of a block as EachCommit does, or the records of a base batch as EachBase
// does, but none of a base batch with damage.
func EachRecord(block journal.Block, commit commitYield, ofBase BaseYield) error {
	h, packed, err := OpenBlock(&block)
	if err != nil {
		return err
	}
	return EachOpened(&block, h, packed, commit, ofBase)
}

// EachOpened is EachRecord for a block that OpenBlock has opened.
func EachOpened(b *journal.Block, h BatchHeader, packed []byte, commit commitYield, ofBase BaseYield) error {
	return unpackBlock(b, &h, packed, func(body reader) error {
		if !h.Base {
			return readCommits(b, &h, body, commit)
		}
		if err := readBases(b, &h, body, func(*BatchHeader, BaseRecord) error { return nil }); err != nil {
			return err
		}
		return readBases(b, &h, body, ofBase)
	})
}

// unpackBlock calls f with the records of a block that OpenBlock has opened. They are valid during the call only.
func unpackBlock(b *journal.Block, h *BatchHeader, packed []byte, f func(body reader) error) error {
	into := Buffers.Get().(*Buffer)
	defer into.Release()
	body, reason := h.unpack(packed, into)
	if reason != "" {
		return damagedBlock(b, reason)
	}
	return f(body)
}

func readCommits(b *journal.Block, h *BatchHeader, body reader, yield commitYield) error {
	var c DecodedCommit
	left, at := uint64(h.Events), h.First
	for i := range int(h.Commits) {
		if !readCommit(&body, left, &c) {
			return damagedBlock(b, "a record is malformed")
		}
		left -= uint64(len(c.Events))
		if err := yield(h, i, at, &c); err != nil {
			return err
		}
		at += journal.Position(len(c.Events))
	}
	if left != 0 || len(body.b) != 0 {
		return damagedBlock(b, "the records do not fill the batch")
	}
	return nil
}

// Event fills in the i-th event of a commit, with views into the batch.
func (c *DecodedCommit) Event(h *BatchHeader, first journal.Position, i int) journal.Event {
	e := &c.Events[i]
	return journal.Event{
		Log: h.Log, Position: first + journal.Position(i), Key: c.Command.Key,
		Version: c.Expected + journal.Version(i) + 1, Type: e.Type, ContentType: ContentType(e.ContentType),
		Data: e.Data, Metadata: e.Metadata,
		CommandID: c.Command.ID, CommandType: c.Command.Type, CommandTime: c.Command.Time, CommandFuel: c.Command.Fuel,
		Time: h.Time, Stamp: h.Stamp(),
	}
}

// ContentType is the content type of an event; none is that of JSON.
func ContentType(s string) string {
	if s == "" {
		return "application/json"
	}
	return s
}
