package lsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/journal/internal/pack"
)

// entry is a key with its value, or the news that it was deleted.
type entry struct {
	key, value []byte
	deleted    bool
}

// A block is entries in the order of their keys:
//
//	uvarint   length of the key
//	uvarint   0 if it is deleted, else length of the value + 1
//	…         key, value
//
// On disk there is one byte in front, the codec: 0 none, 1 S2.
const (
	blockCut  = 8 << 10  // from so many bytes on, a block ends where entries that belong together end
	blockMost = 24 << 10 // from so many on it ends anyway
	// rawMost bounds what a block may claim to be unpacked: one entry of the largest size and
	// the rest of a block.
	rawMost = 1 << 30

	codecNone = 0
	codecS2   = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendEntry(b []byte, e *entry) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.key)))
	if e.deleted {
		return append(append(b, 0), e.key...)
	}
	b = binary.AppendUvarint(b, uint64(len(e.value))+1)
	return append(append(b, e.key...), e.value...)
}

// readEntry is total: ok is false if b does not begin with an entry. The entry is a view.
func readEntry(b []byte) (e entry, size int, ok bool) {
	key, n := uvarint(b)
	if n <= 0 {
		return entry{}, 0, false
	}
	value, m := uvarint(b[n:])
	if m <= 0 {
		return entry{}, 0, false
	}
	at := n + m
	e.deleted = value == 0
	if !e.deleted {
		value--
	}
	if left := uint64(len(b) - at); key > left || value > left-key {
		return entry{}, 0, false
	}
	end := at + int(key)
	size = end + int(value)
	e.key, e.value = b[at:end:end], b[end:size:size]
	return e, size, true
}

// uvarint is binary.Uvarint with a way around it for the short ones, which most are.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	if len(b) > 1 && b[1] < 0x80 {
		return uint64(b[0]&0x7f) | uint64(b[1])<<7, 2
	}
	return binary.Uvarint(b)
}

// packBlock appends a block as it stands on disk. scratch is used and returned.
func packBlock(dst, raw, scratch []byte) (packed, _ []byte) {
	small, ok := pack.Pack(scratch, raw)
	if !ok {
		return append(append(dst, codecNone), raw...), small
	}
	return append(append(dst, codecS2), small...), small
}

// unpackBlock is total. The result is a view of packed or in into, which it may grow.
func unpackBlock(packed []byte, rawLength int, into []byte) ([]byte, error) {
	if len(packed) == 0 {
		return nil, fmt.Errorf("it is empty")
	}
	switch content := packed[1:]; packed[0] {
	case codecNone:
		if len(content) != rawLength {
			return nil, fmt.Errorf("it has %d bytes, not %d", len(content), rawLength)
		}
		return content, nil
	case codecS2:
		return unpack(into, content, rawLength)
	}
	return nil, fmt.Errorf("it has the unknown codec %d", packed[0])
}

// unpack is pack.Unpack of what has to have that length.
func unpack(into, packed []byte, rawLength int) ([]byte, error) {
	raw, err := pack.Unpack(into, packed, min(rawLength, rawMost))
	if err == nil && len(raw) != rawLength {
		err = fmt.Errorf("it has %d bytes, not %d", len(raw), rawLength)
	}
	return raw, err
}

// block is one that was read, with the memory that it is in.
type block struct {
	raw   []byte
	at    []uint32     // where entries begin
	users atomic.Int32 // who has to release it, a cache among them; 0 of a block that never was in one
}

// Memory that blocks are read into, and unpacked from.
var (
	blocks  = sync.Pool{New: func() any { return new(block) }}
	scratch = sync.Pool{New: func() any { return new([]byte) }}
)

const pooledMost = 1 << 20 // bytes; larger ones are left to the garbage collector

// release gives up one use of a block, and its memory back with the last one. The caller may have no views of
// it any more.
func (b *block) release() {
	if b == nil || b.users.Load() > 0 && b.users.Add(-1) > 0 {
		return
	}
	if b.size() <= pooledMost {
		blocks.Put(b)
	}
}

// fit gives memory up that was a larger block's, if that is most of it.
func (b *block) fit() {
	if cap(b.raw) > 2*len(b.raw) {
		b.raw = bytes.Clone(b.raw)
	}
	if cap(b.at) > 2*len(b.at) {
		b.at = slices.Clone(b.at)
	}
}

// least is the memory that the block needs, in bytes.
func (b *block) least() int64 { return int64(len(b.raw) + 4*len(b.at)) }

// size is the memory that the block takes, in bytes: up to twice as much once it fits.
func (b *block) size() int64 { return int64(cap(b.raw) + 4*cap(b.at)) }

// parse finds the entries of the block. It is total.
func (b *block) parse() error {
	b.at = b.at[:0]
	for at := 0; at < len(b.raw); {
		_, size, ok := readEntry(b.raw[at:])
		if !ok {
			return fmt.Errorf("its entry %d is malformed", len(b.at))
		}
		b.at = append(b.at, uint32(at))
		at += size
	}
	return nil
}

func (b *block) entry(i int) entry {
	e, _, _ := readEntry(b.raw[b.at[i]:])
	return e
}

// search is the place of the first entry whose key is not below key.
func (b *block) search(key []byte) int {
	return sort.Search(len(b.at), func(i int) bool { return bytes.Compare(b.entry(i).key, key) >= 0 })
}
