package pebbleindex

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"
)

// comparerName is in the files. It changes with the order of keys and with what a group is.
const comparerName = "bulkhead.index.1"

// newComparer orders keys by their bytes. The prefix of a key, which has one entry in the filters, is its group, or
// the whole key if it has none. group is total, so any bytes can be compared. As it looks at nothing behind
// the group, all keys that begin with the bytes of a group are of that group.
func newComparer(group func(key []byte) int) *pebble.Comparer {
	c := *pebble.DefaultComparer
	c.Name = comparerName
	c.Split = func(key []byte) int {
		if n := group(key); n > 0 {
			return n
		}
		return len(key)
	}
	// A shorter key between two others might be of another group, so separators are not shortened.
	c.Separator = func(dst, a, _ []byte) []byte { return append(dst, a...) }
	c.Successor = func(dst, a []byte) []byte { return append(dst, a...) }
	c.ImmediateSuccessor = func(dst, prefix []byte) []byte {
		if end := behind(prefix); end != nil {
			return append(dst, end...)
		}
		return append(append(dst, prefix...), 0)
	}
	return &c
}

// behind is the first key behind all those with a prefix, nil if there is none.
func behind(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
