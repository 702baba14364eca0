package lsm

import (
	"bytes"
	"slices"
	"sort"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// piece is what an update brought, or several merged: entries in the order of their keys, in one
// piece of memory. It has no pointers, so the garbage collector does not look into it, and it is
// never changed.
type piece struct {
	data   []byte // keys and values
	refs   []ref
	filter filter
}

// ref is where an entry stands in a piece.
type ref struct {
	at     int
	value  uint32 // its length
	key    uint16
	delete bool
}

// Limits of an entry.
const (
	maxKey   = 1<<16 - 1
	maxValue = rawMost / 2
)

func (p *piece) entry(i int) entry {
	r := &p.refs[i]
	end := r.at + int(r.key)
	return entry{p.data[r.at:end:end], p.data[end : end+int(r.value)], r.delete}
}

func (p *piece) key(i int) []byte {
	r := &p.refs[i]
	return p.data[r.at : r.at+int(r.key)]
}

// bytes is about what the piece takes of memory.
func (p *piece) bytes() int { return len(p.data) + len(p.refs)*16 + len(p.filter) }

// search is the place of the first key that is not below key.
func (p *piece) search(key []byte) int {
	return sort.Search(len(p.refs), func(i int) bool { return bytes.Compare(p.key(i), key) >= 0 })
}

// add appends an entry that comes behind all others.
func (p *piece) add(key, value []byte, deleted bool) {
	p.refs = append(p.refs, ref{len(p.data), uint32(len(value)), uint16(len(key)), deleted})
	p.data = yield.Append(append(p.data, key...), value)
}

// finish makes the filter.
func (p *piece) finish(group func([]byte) int) {
	h := filterHashes{all: make([]uint64, 0, len(p.refs)+len(p.refs)/2)}
	for i := range p.refs {
		h.add(hashes(p.key(i), group))
	}
	p.filter = h.filter()
}

// newPiece makes a piece of pairs in any order; of equal keys the last one counts. It is faster if
// most are in order. It copies them.
func newPiece(pairs []journal.Pair, deleted bool, group func([]byte) int) (*piece, error) {
	size := 0
	for i := range pairs {
		if k, v := len(pairs[i].Key), len(pairs[i].Value); k == 0 || k > maxKey || v > maxValue {
			return nil, &journal.Error{Op: "index", Kind: journal.KindInvalid, Detail: "a key has 1 byte to 64 KiB, and a value at most 512 MiB"}
		}
		size += len(pairs[i].Key) + len(pairs[i].Value)
	}
	compare := func(a, b int) int { return bytes.Compare(pairs[a].Key, pairs[b].Key) }
	// The journal has its entries in order, with a few others behind them.
	sorted := min(1, len(pairs))
	for sorted < len(pairs) && compare(sorted-1, sorted) < 0 {
		sorted++
	}
	rest := make([]int, len(pairs)-sorted)
	for i := range rest {
		rest[i] = sorted + i
	}
	slices.SortStableFunc(rest, compare)
	p := &piece{data: yield.Uncleared(size), refs: make([]ref, 0, len(pairs))}
	var work yield.Work
	for i := 0; i < sorted || len(rest) > 0; {
		var at int
		order := -1
		if i == sorted {
			order = 1
		} else if len(rest) > 0 {
			order = compare(i, rest[0])
		}
		switch {
		case order < 0:
			at, i = i, i+1
		case order == 0: // the later one counts
			i++
			continue
		default:
			at, rest = rest[0], rest[1:]
			if len(rest) > 0 && compare(at, rest[0]) == 0 {
				continue
			}
		}
		x := &pairs[at]
		p.add(x.Key, x.Value, deleted)
		work.Did(len(x.Key) + len(x.Value))
	}
	p.finish(group)
	return p, nil
}

// memoryTier is how many pieces of about the same size there are before they become one.
const memoryTier = 8

// withPiece returns pieces, oldest first, and another one, with those merged that have come to be
// as many as memoryTier and of about the same size. It does not change pieces.
func withPiece(pieces []*piece, p *piece, group func([]byte) int) []*piece {
	all := append(slices.Clone(pieces), p)
	for {
		n, size := 1, len(all[len(all)-1].refs)
		for n < len(all) && len(all[len(all)-1-n].refs) <= size*memoryTier/2 {
			n++
		}
		if n < memoryTier {
			return all
		}
		from := len(all) - n
		all = append(all[:from:from], mergePieces(all[from:], group))
	}
}

// mergePieces makes one piece of several, oldest first.
func mergePieces(pieces []*piece, group func([]byte) int) *piece {
	size, count := 0, 0
	for _, p := range pieces {
		size += len(p.data)
		count += len(p.refs)
	}
	m := &piece{data: yield.Uncleared(size), refs: make([]ref, 0, count)}
	var work yield.Work
	merge := newMerge(pieceSources(pieces))
	_ = merge.first() // no source of a piece has an error
	for s := merge.top(); s != nil; s = merge.top() {
		e := s.entry
		m.add(e.key, e.value, e.deleted)
		work.Did(len(e.key) + len(e.value))
		_ = merge.next()
	}
	m.finish(group)
	return m
}
