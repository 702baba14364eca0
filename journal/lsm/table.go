package lsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sort"
	"sync"
	"sync/atomic"
)

// errDamaged is in errors that say that a file is not what was written.
var errDamaged = errors.New("damaged")

func damaged(file, format string, args ...any) error {
	return fmt.Errorf("%s is %w: %s", file, errDamaged, fmt.Sprintf(format, args...))
}

// about is what the list of runs says of a table.
type about struct {
	id          uint64
	size        int64  // of the file
	metaAt      int64  // where its directory begins, which goes to the end
	metaRaw     int64  // length of the directory, unpacked
	metaCRC     uint32 // CRC-32C of the directory as it is on disk
	entries     uint64
	deleted     uint64 // of them
	first, last []byte // keys
}

// table is an open file. The directory is read when it is first needed.
type table struct {
	about
	path string
	file *os.File

	loaded  atomic.Pointer[meta]
	loading sync.Mutex

	users    int  // versions that have it; guarded by the store's mu
	obsolete bool // to be removed when there are no users; likewise
}

// meta is a table's directory.
type meta struct {
	places []place
	keys   []byte // the first keys of blocks, one behind the other
	filter filter
}

// place is where a block stands in the file, and its first key in keys.
type place struct {
	at          int64
	length, raw uint32
	crc         uint32
	key         uint32 // where it ends
}

func (m *meta) blocks() int { return len(m.places) }

func (m *meta) key(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = m.places[i-1].key
	}
	return m.keys[from:m.places[i].key]
}

// search is the last block whose first key is not above key, -1 if there is none.
func (m *meta) search(key []byte) int {
	return sort.Search(len(m.places), func(i int) bool { return bytes.Compare(m.key(i), key) > 0 }) - 1
}

// A directory is packed with S2 as a whole. Unpacked it is
//
//	uvarint   number of blocks
//	          for each: uvarint length, uvarint length unpacked, u32 CRC-32C of it as it is
//	          on disk, uvarint length of its first key, the key
//	…         the filter, up to the end
func encodeMeta(m *meta) []byte {
	b := binary.AppendUvarint(nil, uint64(len(m.places)))
	for i, p := range m.places {
		b = binary.AppendUvarint(b, uint64(p.length))
		b = binary.AppendUvarint(b, uint64(p.raw))
		b = binary.LittleEndian.AppendUint32(b, p.crc)
		b = binary.AppendUvarint(b, uint64(len(m.key(i))))
		b = append(b, m.key(i)...)
	}
	return append(b, m.filter...)
}

// decodeMeta is total. size is that of all blocks together.
func decodeMeta(b []byte, size int64) (*meta, error) {
	r := reader{b: b}
	const least = 1 + 1 + 4 + 1 // bytes of a block
	n := r.uint(uint64(len(b) / least))
	m := &meta{places: make([]place, 0, n)}
	at := int64(0)
	for range n {
		p := place{at: at, length: uint32(r.uint(rawMost)), raw: uint32(r.uint(rawMost)), crc: r.u32()}
		m.keys = append(m.keys, r.bytes()...)
		p.key = uint32(len(m.keys))
		at += int64(p.length)
		m.places = append(m.places, p)
	}
	m.filter = r.b
	if r.bad || at != size || len(m.filter)%filterLine != 0 || n == 0 {
		return nil, errors.New("its directory is malformed")
	}
	return m, nil
}

// openTable opens a table's file and holds its size against what is known of it.
func openTable(path string, a about) (*table, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, damaged(path, "it is missing")
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != a.size {
		err = damaged(path, "it has %d bytes, not %d", info.Size(), a.size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &table{about: a, path: path, file: f}, nil
}

func (t *table) meta() (*meta, error) {
	if m := t.loaded.Load(); m != nil {
		return m, nil
	}
	t.loading.Lock()
	defer t.loading.Unlock()
	if m := t.loaded.Load(); m != nil {
		return m, nil
	}
	packed := make([]byte, t.size-t.metaAt) // the file is as long
	if err := t.readAt(packed, t.metaAt); err != nil {
		return nil, err
	}
	if crc32.Checksum(packed, castagnoli) != t.metaCRC {
		return nil, damaged(t.path, "the checksum of its directory is wrong")
	}
	raw, err := unpack(nil, packed, int(t.metaRaw))
	if err != nil {
		return nil, damaged(t.path, "its directory is malformed: %v", err)
	}
	m, err := decodeMeta(raw, t.metaAt)
	if err != nil {
		return nil, damaged(t.path, "%v", err)
	}
	t.loaded.Store(m)
	return m, nil
}

// readAt tells a file that ends too early from what the system says.
func (t *table) readAt(b []byte, at int64) error {
	n, err := t.file.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	return damaged(t.path, "it ends at %d", at+int64(n))
}

// read reads a block into one that nobody else uses.
func (t *table) read(i int, into *block) error {
	m, err := t.meta()
	if err != nil {
		return err
	}
	p := &m.places[i]
	buf := scratch.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= pooledMost {
			scratch.Put(buf)
		}
	}()
	if cap(*buf) < int(p.length) {
		*buf = make([]byte, p.length+p.length/4)
	}
	packed := (*buf)[:p.length]
	if err := t.readAt(packed, p.at); err != nil {
		return err
	}
	if crc32.Checksum(packed, castagnoli) != p.crc {
		return damaged(t.path, "the checksum of the block at %d is wrong", p.at)
	}
	raw, err := unpackBlock(packed, int(p.raw), into.raw)
	if err != nil {
		return damaged(t.path, "the block at %d: %v", p.at, err)
	}
	if packed[0] == codecNone { // raw is a view of what is read into next time
		*buf = into.raw
	}
	into.raw = raw
	if err := into.parse(); err != nil {
		return damaged(t.path, "the block at %d: %v", p.at, err)
	}
	return nil
}

// mayHave is false if no entry with that hash is in the table.
func (t *table) mayHave(hash uint64) (bool, error) {
	m, err := t.meta()
	if err != nil {
		return false, err
	}
	return m.filter.mayHave(hash), nil
}

// run is a sequence of tables that do not overlap, in the order of their keys.
type run struct {
	tier   int
	tables []*table
}

func (r *run) size() (n int64) {
	for _, t := range r.tables {
		n += t.size
	}
	return n
}

// search is the first table whose last key is not below key.
func (r *run) search(key []byte) int {
	return sort.Search(len(r.tables), func(i int) bool { return bytes.Compare(r.tables[i].last, key) >= 0 })
}

// mayHave is false if the run has no entry with a key that starts with prefix and is of the
// group with that hash.
func (r *run) mayHave(prefix []byte, hash uint64) (bool, error) {
	for _, t := range r.tables[r.search(prefix):] {
		if bytes.Compare(t.first, prefix) > 0 && !bytes.HasPrefix(t.first, prefix) {
			return false, nil
		}
		if has, err := t.mayHave(hash); has || err != nil {
			return has, err
		}
	}
	return false, nil
}

// get calls found with the entry of a key, a view, and reports whether there is one.
func (r *run) get(key []byte, hash uint64, c *cache, found func(entry)) (ok bool, err error) {
	i := r.search(key)
	if i == len(r.tables) {
		return false, nil
	}
	t := r.tables[i]
	m, err := t.meta()
	if err != nil {
		return false, err
	}
	if !m.filter.mayHave(hash) {
		return false, nil
	}
	at := m.search(key)
	if at < 0 {
		return false, nil
	}
	b, err := c.read(t, at)
	if err != nil {
		return false, err
	}
	defer b.release()
	if i := b.search(key); i < len(b.at) {
		if e := b.entry(i); bytes.Equal(e.key, key) {
			found(e)
			return true, nil
		}
	}
	return false, nil
}
