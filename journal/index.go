package journal

import (
	"context"
	"encoding/binary"
	"hash/crc32"
)

// Keys of the index. Everything in it is derived from the log, so its layout may
// change between releases; a changed layout means a new indexLayout, and Open makes
// the index anew.
//
//	'e' log key u64 version   an event of an entity: position, time, fields
//	'a' log command id        where the command's commit stands
//	'c' log                   checkpoint: how far the log is indexed
//	'v'                       layout
//
// log and key carry a u16 length, big-endian like all numbers in keys, so that
// byte order is the order of versions and no name is a prefix of another. Values
// start with a CRC-32C of the rest.
const indexLayout = 1

func indexPrefix(kind byte, log LogName) []byte {
	b := make([]byte, 0, 32+len(log))
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(log)))
	return append(b, log...)
}

func entityPrefix(log LogName, key string) []byte {
	b := indexPrefix('e', log)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	return append(b, key...)
}

func entityKey(prefix []byte, v Version) []byte {
	return binary.BigEndian.AppendUint64(prefix[:len(prefix):len(prefix)], uint64(v))
}

func entityVersion(prefix, key []byte) (Version, bool) {
	if len(key) != len(prefix)+8 {
		return 0, false
	}
	return Version(binary.BigEndian.Uint64(key[len(prefix):])), true
}

func answerKey(log LogName, id CommandID) []byte { return append(indexPrefix('a', log), id...) }

func checkpointKey(log LogName) []byte { return indexPrefix('c', log) }

var layoutKey = []byte{'v'}

// sealValue puts the checksum in front of a value built behind four free bytes.
func sealValue(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func openValue(b []byte) (reader, bool) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return reader{}, false
	}
	return reader{b: b[4:]}, true
}

func encodeIndexEvent(e *Event) []byte {
	w := writer{make([]byte, 4, 64+len(e.Type)+len(e.Data)+len(e.Metadata)+len(e.CommandID)+len(e.CommandType))}
	w.u64(uint64(e.Position))
	w.u64(uint64(e.Time))
	w.str(e.Type)
	w.str(e.ContentType)
	w.str(string(e.CommandID))
	w.str(e.CommandType)
	w.bytes(e.Metadata)
	w.bytes(e.Data)
	return sealValue(w.b)
}

// decodeIndexEvent fills in what the value says; the slices are views.
func decodeIndexEvent(b []byte, e *Event) bool {
	r, ok := openValue(b)
	if !ok {
		return false
	}
	e.Position, e.Time = Position(r.u64()), UnixNano(r.u64())
	e.Type, e.ContentType = r.str(), r.str()
	e.CommandID, e.CommandType = CommandID(r.str()), r.str()
	e.Metadata, e.Data = r.bytes(), r.bytes()
	return !r.bad && len(r.b) == 0
}

// place is where a commit stands in its log.
type place struct {
	first    Position // of the batch
	sequence uint64   // of the batch
	ordinal  uint64   // of the commit in the batch
	time     UnixNano // of the batch
}

func encodePlace(p place) []byte {
	w := writer{make([]byte, 4, 40)}
	w.u64(uint64(p.first))
	w.u64(p.sequence)
	w.uint(p.ordinal)
	w.u64(uint64(p.time))
	return sealValue(w.b)
}

func decodePlace(b []byte) (p place, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return place{}, false
	}
	p = place{first: Position(r.u64()), sequence: r.u64(), ordinal: r.uint(), time: UnixNano(r.u64())}
	return p, !r.bad && len(r.b) == 0
}

// checkpoint says that all batches of a log up to sequence are in the index. next
// is where the first event after them stands.
type checkpoint struct {
	sequence uint64
	next     Position
}

func encodeCheckpoint(c checkpoint) []byte {
	w := writer{make([]byte, 4, 20)}
	w.u64(c.sequence)
	w.u64(uint64(c.next))
	return sealValue(w.b)
}

func decodeCheckpoint(b []byte) (c checkpoint, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return checkpoint{}, false
	}
	c = checkpoint{sequence: r.u64(), next: Position(r.u64())}
	return c, !r.bad && len(r.b) == 0
}

// indexBlock appends to pairs what one block contributes to the index, its
// checkpoint last, so that a split update never claims more than it did.
func indexBlock(pairs []Pair, block Block) ([]Pair, error) {
	next := block.First
	err := eachCommit(block, func(h *batchHeader, ordinal int, first Position, c *decodedCommit) error {
		prefix := entityPrefix(h.log, c.command.Key)
		for i := range c.events {
			e := c.event(h, first, i)
			pairs = append(pairs, Pair{entityKey(prefix, e.Version), encodeIndexEvent(&e)})
		}
		where := place{h.first, h.sequence, uint64(ordinal), h.time}
		pairs = append(pairs, Pair{answerKey(h.log, c.command.ID), encodePlace(where)})
		next = first + Position(len(c.events))
		return nil
	})
	if err != nil {
		return pairs, err
	}
	return append(pairs, Pair{checkpointKey(block.Log), encodeCheckpoint(checkpoint{block.Sequence, next})}), nil
}

// completeIndex indexes what the log has beyond the index's checkpoints. It
// yields the number of blocks done so far, for progress.
func completeIndex(ctx context.Context, e Engine, progress func(blocks uint64)) error {
	const pairsAtOnce = 8192
	var blocks uint64
	layout, ok, err := e.Index().Get(ctx, layoutKey)
	if err != nil {
		return err
	}
	if !ok || len(layout) != 1 || layout[0] != indexLayout {
		if err := e.Index().Clear(ctx); err != nil {
			return err
		}
		if err := e.Index().Update(ctx, []Pair{{layoutKey, []byte{indexLayout}}}); err != nil {
			return err
		}
	}
	logs, err := e.Log().Logs(ctx)
	if err != nil {
		return err
	}
	for _, log := range logs {
		var done checkpoint
		value, ok, err := e.Index().Get(ctx, checkpointKey(log))
		if err != nil {
			return err
		}
		if ok {
			// A broken checkpoint is none: the log is indexed from its start again.
			done, _ = decodeCheckpoint(value)
		}
		var pairs []Pair
		flush := func() error {
			err := e.Index().Update(ctx, pairs)
			pairs = pairs[:0]
			return err
		}
		err = e.Log().Blocks(ctx, log, done.next, func(b Block) error {
			if b.Sequence <= done.sequence {
				return nil
			}
			if pairs, err = indexBlock(pairs, b); err != nil {
				return err
			}
			blocks++
			if progress != nil {
				progress(blocks)
			}
			if len(pairs) >= pairsAtOnce {
				return flush()
			}
			return nil
		})
		if err == nil && len(pairs) > 0 {
			err = flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Rebuild makes the index anew from the log alone. No journal may be open on the
// engine. progress, if not nil, is told how many batches are done.
func Rebuild(ctx context.Context, e Engine, progress func(batches uint64)) error {
	if err := e.Index().Clear(ctx); err != nil {
		return &Error{Op: "rebuild", Kind: kindOfEngine(err), Err: err}
	}
	if err := completeIndex(ctx, e, progress); err != nil {
		return &Error{Op: "rebuild", Kind: kindOfEngine(err), Err: err}
	}
	return nil
}
