package lsm

import (
	"bytes"
	"errors"
	"hash/crc32"
	"os"

	"github.com/bulkhead-wasm/bulkhead/journal/internal/pack"
)

const (
	writeAtOnce = 256 << 10
	syncEvery   = 8 << 20 // so that no sync has much to do, and the log's do not wait for it
)

// builder writes one table.
type builder struct {
	fault func(op string) error
	file  *os.File
	about about
	path  string

	raw     []byte // of the current block
	first   []byte // its first key
	group   uint64 // hash of its last entry
	buf     []byte // not written yet
	scratch []byte
	unsynced,
	written int64
	meta   meta
	hashes filterHashes
}

// newBuilder makes a file, which must not be there yet.
func newBuilder(path string, id uint64, fault func(string) error) (*builder, error) {
	if err := fault("create"); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &builder{fault: fault, file: f, path: path, about: about{id: id}}, nil
}

// add appends an entry, whose key is above that of the one before. It says whether a block
// was finished, and the entry begins the next one.
func (b *builder) add(e *entry, group func([]byte) int) (cut bool, err error) {
	ofGroup, whole := hashes(e.key, group)
	if n := len(b.raw); n >= blockMost || n >= blockCut && ofGroup != b.group {
		if err := b.cut(); err != nil {
			return false, err
		}
		cut = true
	}
	if len(b.raw) == 0 {
		b.first = append(b.first[:0], e.key...)
	}
	if b.about.entries == 0 {
		b.about.first = bytes.Clone(e.key)
	}
	b.raw = appendEntry(b.raw, e)
	b.about.last = append(b.about.last[:0], e.key...)
	b.about.entries++
	if e.deleted {
		b.about.deleted++
	}
	b.hashes.add(ofGroup, whole)
	b.group = ofGroup
	return cut, nil
}

// cut ends the block.
func (b *builder) cut() error {
	before := len(b.buf)
	b.buf, b.scratch = packBlock(b.buf, b.raw, b.scratch)
	packed := b.buf[before:]
	b.meta.keys = append(b.meta.keys, b.first...)
	b.meta.places = append(b.meta.places, place{length: uint32(len(packed)), raw: uint32(len(b.raw)),
		crc: crc32.Checksum(packed, castagnoli), key: uint32(len(b.meta.keys))})
	b.about.metaAt += int64(len(packed))
	b.raw = b.raw[:0]
	if len(b.buf) >= writeAtOnce {
		return b.flush()
	}
	return nil
}

// flush hands what was gathered to the system.
func (b *builder) flush() error {
	if err := b.fault("write"); err != nil {
		return err
	}
	n, err := b.file.Write(b.buf)
	b.written += int64(n)
	b.unsynced += int64(n)
	b.buf = b.buf[:0]
	if err == nil && b.unsynced >= syncEvery {
		b.unsynced = 0
		err = b.sync()
	}
	return err
}

func (b *builder) sync() error {
	if err := b.fault("sync"); err != nil {
		return err
	}
	return b.file.Sync()
}

// finish ends the table, which then is safe on the disk, and returns it open.
func (b *builder) finish() (*table, error) {
	if len(b.raw) > 0 {
		if err := b.cut(); err != nil {
			return nil, err
		}
	}
	m := b.meta // not a part of b, whose memory nobody needs any more
	m.filter = b.hashes.filter()
	at := int64(0)
	for i := range m.places {
		m.places[i].at = at
		at += int64(m.places[i].length)
	}
	raw := encodeMeta(&m)
	packed, _ := pack.Pack(nil, raw)
	b.about.metaRaw = int64(len(raw))
	b.about.metaCRC = crc32.Checksum(packed, castagnoli)
	b.about.size = b.about.metaAt + int64(len(packed))
	b.buf = append(b.buf, packed...)
	if err := errors.Join(b.flush(), b.sync()); err != nil {
		return nil, err
	}
	t := &table{about: b.about, path: b.path, file: b.file}
	t.loaded.Store(&m)
	return t, nil
}

// discard removes what was written.
func (b *builder) discard() error {
	return errors.Join(b.file.Close(), os.Remove(b.path))
}
