package lsm

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A block is decoded or refused, whatever its bytes are, and its entries are what their own encoding
// gives again.
func FuzzBlock(f *testing.F) {
	var raw []byte
	for _, e := range []entry{{key: []byte("a"), value: []byte("1")}, {key: []byte("b"), deleted: true}, {key: []byte("c"), value: bytes.Repeat([]byte("x"), 300)}} {
		raw = appendEntry(raw, &e)
	}
	packed, _ := packBlock(nil, raw, nil)
	f.Add(packed, len(raw))
	f.Add(append([]byte{codecNone}, raw...), len(raw))
	f.Fuzz(func(t *testing.T, packed []byte, length int) {
		if length > 1<<20 { // a directory with a good checksum vouches for it
			return
		}
		raw, err := unpackBlock(packed, length, nil)
		if err != nil {
			return
		}
		if len(raw) != length {
			t.Fatalf("%d bytes, not %d", len(raw), length)
		}
		b := &block{raw: raw}
		if b.parse() != nil {
			return
		}
		for i := range b.at {
			e := b.entry(i)
			again, size, ok := readEntry(appendEntry(nil, &e))
			if !ok || size == 0 || !bytes.Equal(again.key, e.key) || !bytes.Equal(again.value, e.value) || again.deleted != e.deleted {
				t.Fatalf("%+v does not survive its own encoding", e)
			}
		}
	})
}

// A directory is decoded or refused, whatever its bytes are.
func FuzzDirectory(f *testing.F) {
	m := &meta{places: []place{{length: 10, raw: 20, crc: 3, key: 1}, {length: 5, raw: 5, crc: 4, key: 3}}, keys: []byte("abc"), filter: filterHashes{}.filter()}
	f.Add(encodeMeta(m), int64(15))
	f.Add([]byte{1}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		m, err := decodeMeta(b, size)
		if err != nil {
			return
		}
		again, err := decodeMeta(encodeMeta(m), size)
		if err != nil || !slices.Equal(again.places, m.places) || !bytes.Equal(again.keys, m.keys) || !bytes.Equal(again.filter, m.filter) {
			t.Fatalf("%+v does not survive its own encoding: %+v, %v", m, again, err)
		}
		for i := range m.blocks() {
			if at := m.search(m.key(i)); at >= m.blocks() {
				t.Fatalf("search gives %d of %d", at, m.blocks())
			}
		}
		m.filter.mayHave(hashOf(b))
	})
}

// The list of runs is decoded or refused, whatever its bytes are; also behind a good checksum.
func FuzzRuns(f *testing.F) {
	f.Add(encodeRuns(1, nil))
	f.Add(encodeRuns(9, []*run{{tier: 1, tables: []*table{{about: about{id: 3, size: 100, metaAt: 90, metaRaw: 20, metaCRC: 7, entries: 5, deleted: 1, first: []byte("a"), last: []byte("b")}}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 {
			sealed := b[:len(b)-4]
			b = binary.LittleEndian.AppendUint32(bytes.Clone(sealed), crc32.Checksum(sealed, castagnoli))
		}
		l, err := decodeRuns(b)
		if err != nil {
			return
		}
		var runs []*run
		for _, r := range l.runs {
			one := &run{tier: r.tier}
			for _, a := range r.tables {
				one.tables = append(one.tables, &table{about: a})
			}
			runs = append(runs, one)
		}
		if again, err := decodeRuns(encodeRuns(l.next, runs)); err != nil || len(again.runs) != len(l.runs) {
			t.Fatalf("%+v does not survive its own encoding: %+v, %v", l, again, err)
		}
	})
}

// A piece has the last value of each key, in order, however the pairs were.
func FuzzPiece(f *testing.F) {
	f.Add([]byte("abcabc"))
	f.Add([]byte("abcdefghijaxb"))
	f.Fuzz(func(t *testing.T, keys []byte) {
		var pairs []journal.Pair
		want := map[byte]byte{}
		for i, k := range keys {
			pairs = append(pairs, journal.Pair{Key: []byte{k}, Value: []byte{byte(i)}})
			want[k] = byte(i)
		}
		p, err := newPiece(pairs, false, testGroup)
		if err != nil || len(p.refs) != len(want) {
			t.Fatalf("%d entries, not %d: %v", len(p.refs), len(want), err)
		}
		for i := range p.refs {
			e := p.entry(i)
			if i > 0 && bytes.Compare(p.key(i-1), e.key) >= 0 || want[e.key[0]] != e.value[0] {
				t.Fatalf("entry %d is %q: %q", i, e.key, e.value)
			}
		}
	})
}
