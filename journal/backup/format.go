package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A file of a backup: part of the disk format.
//
//	8 B   "BHBK", format version 1, three zeros
//	then records:
//	u8    kind: 1 head, 2 batch, 3 module, 4 manifest
//	u32   length of what follows the checksum
//	u32   CRC-32C of kind, length and what follows the checksum
//	…     head: JSON of a Head
//	      batch: the bytes of a batch
//	      module: its SHA-256, then its bytes
//	      manifest: JSON of a Manifest
//	and behind the manifest:
//	u64   where the record of the manifest begins
//	4 B   "KBHB"
//
// Integers are little-endian. The head is the first record, the manifest the
// last, and nothing follows the footer.
const (
	magic         = "BHBK\x01\x00\x00\x00"
	footerMagic   = "KBHB"
	footerSize    = 12
	recordHead    = 1
	recordBatch   = 2
	recordModule  = 3
	recordEnd     = 4
	recordHeader  = 9
	maxRecord     = 1 << 30  // of what follows the checksum; no batch or module is larger
	maxDescriptor = 64 << 20 // of a head or a manifest
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Hash is a SHA-256 that is text in JSON.
type Hash [sha256.Size]byte

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("%.80q is not a SHA-256 in hex", text)
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// Head is the first record of a file.
type Head struct {
	// ID tells this file from all others.
	ID string `json:"id"`
	// Previous is the ID of the backup that this one continues; empty if it is complete
	// in itself.
	Previous string    `json:"previous,omitempty"`
	Created  time.Time `json:"created"`
	// Piece says that this is a piece of one log and no backup of a whole journal.
	Piece bool `json:"piece,omitempty"`
}

// Manifest is the last record of a file: what the file holds, and where a backup
// that continues it begins.
type Manifest struct {
	Head
	Logs []Log `json:"logs"`
	// Modules are all those stored; with the ones that are in earlier files.
	Modules []Module `json:"modules"`
	Batches uint64   `json:"batches"` // in this file
	Bytes   uint64   `json:"bytes"`   // of this file, up to the manifest
	SHA256  Hash     `json:"sha256"`  // of these bytes
}

// Log is how far a log has come, and what of it is in this file.
type Log struct {
	Name     journal.LogName  `json:"name"`
	Sequence uint64           `json:"batch"`    // the last batch
	First    journal.Position `json:"first"`    // where the last batch begins
	Position journal.Position `json:"position"` // of the last event
	Time     journal.UnixNano `json:"time"`     // of the last batch
	Hash     Hash             `json:"sha256"`   // of the last batch
	Batches  uint64           `json:"batches"`  // in this file
	Events   uint64           `json:"events"`   // likewise
}

// Module is a stored module.
type Module struct {
	Digest Hash `json:"sha256"`
	Here   bool `json:"here"` // in this file
}

// end is the log's last batch, for [journal.Batch.Follows].
func (l *Log) end() journal.Batch {
	return journal.Batch{Log: l.Name, Sequence: l.Sequence, First: l.First, Next: l.Position + 1, Time: l.Time,
		Hash: l.Hash}
}

// log finds a log of the manifest, or nil.
func (m *Manifest) log(name journal.LogName) *Log {
	for i := range m.Logs {
		if m.Logs[i].Name == name {
			return &m.Logs[i]
		}
	}
	return nil
}

// ParseManifest reads a manifest as JSON, from whoever sends it.
func ParseManifest(text []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, errorf(journal.KindInvalid, "this is not the manifest of a backup: %v", err)
	}
	if m.ID == "" {
		return nil, errorf(journal.KindInvalid, "this is not the manifest of a backup: it has no id")
	}
	for _, l := range m.Logs {
		if l.Sequence == 0 || l.First == 0 || l.First > l.Position+1 || l.Name == "" {
			return nil, errorf(journal.KindInvalid, "the manifest counts from 0 what counts from 1 in log %q", l.Name)
		}
	}
	return &m, nil
}

func errorf(kind journal.ErrorKind, format string, args ...any) error {
	return &journal.Error{Op: "backup", Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// writer writes the records of a file.
type writer struct {
	w    io.Writer
	sum  hash.Hash
	size uint64
}

func newWriter(w io.Writer) (*writer, error) {
	out := &writer{w: w, sum: sha256.New()}
	return out, out.raw([]byte(magic))
}

func (w *writer) raw(b []byte) error {
	w.sum.Write(b)
	w.size += uint64(len(b))
	_, err := w.w.Write(b)
	return err
}

// record writes one record; its content may come in two pieces.
func (w *writer) record(kind byte, a, b []byte) error {
	var h [recordHeader]byte
	h[0] = kind
	binary.LittleEndian.PutUint32(h[1:], uint32(len(a)+len(b)))
	crc := crc32.Checksum(h[:5], castagnoli)
	crc = crc32.Update(crc, castagnoli, a)
	crc = crc32.Update(crc, castagnoli, b)
	binary.LittleEndian.PutUint32(h[5:], crc)
	for _, p := range [][]byte{h[:], a, b} {
		if err := w.raw(p); err != nil {
			return err
		}
	}
	return nil
}

// finish writes the manifest and the footer.
func (w *writer) finish(m *Manifest) error {
	m.Bytes = w.size
	w.sum.Sum(m.SHA256[:0])
	at := w.size
	if err := w.describe(recordEnd, m); err != nil {
		return err
	}
	return w.raw(append(binary.LittleEndian.AppendUint64(nil, at), footerMagic...))
}

// describe writes a record of JSON.
func (w *writer) describe(kind byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return errorf(journal.KindInternal, "encode: %v", err)
	}
	return w.record(kind, text, nil)
}

// reader reads them.
type reader struct {
	r    *bufio.Reader
	sum  hash.Hash
	size uint64
	buf  bytes.Buffer // the last record's content
}

// damaged is the error of a file that is not as it was written.
func (r *reader) damaged(format string, args ...any) error {
	return errorf(journal.KindCorrupt, "byte %d: "+format, append([]any{r.size}, args...)...)
}

func newReader(in io.Reader) (*reader, error) {
	r := &reader{r: bufio.NewReaderSize(in, 32<<10), sum: sha256.New()}
	var got [len(magic)]byte
	if _, err := io.ReadFull(r.r, got[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, r.damaged("this is not a file of a backup: it ends before it begins")
		}
		return nil, readError(err)
	}
	switch {
	case string(got[:4]) != magic[:4]:
		return nil, r.damaged("this is not a file of a backup")
	case string(got[:]) != magic:
		return nil, r.damaged("the file has a format version that this program does not know")
	}
	r.sum.Write(got[:])
	r.size = uint64(len(got))
	return r, nil
}

// next reads a record. Its content is valid until the next. The sum and size are those
// up to and without it, until pass is called.
func (r *reader) next() (kind byte, content []byte, pass func(), err error) {
	var h [recordHeader]byte
	ends := func(err error) (byte, []byte, func(), error) {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, nil, r.damaged("the file ends before its manifest: it was not finished, or its end is lost")
		}
		return 0, nil, nil, readError(err)
	}
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return ends(err)
	}
	length := binary.LittleEndian.Uint32(h[1:])
	if length > maxRecord {
		return 0, nil, nil, r.damaged("a record claims %d bytes; none has more than %d", length, maxRecord)
	}
	// The buffer grows by what is there, not by what is claimed.
	r.buf.Reset()
	if n, err := r.buf.ReadFrom(io.LimitReader(r.r, int64(length))); err != nil {
		return ends(err)
	} else if n < int64(length) {
		return ends(io.EOF)
	}
	content = r.buf.Bytes()
	crc := crc32.Update(crc32.Checksum(h[:5], castagnoli), castagnoli, content)
	if crc != binary.LittleEndian.Uint32(h[5:]) {
		return 0, nil, nil, r.damaged("the record's checksum is wrong")
	}
	return h[0], content, func() {
		r.sum.Write(h[:])
		r.sum.Write(content)
		r.size += uint64(recordHeader + len(content))
	}, nil
}

// descriptor decodes a record of JSON.
func (r *reader) descriptor(content []byte, v any) error {
	if len(content) > maxDescriptor {
		return r.damaged("a description of %d bytes; none has more than %d", len(content), maxDescriptor)
	}
	if err := json.Unmarshal(content, v); err != nil {
		return r.damaged("a description cannot be read: %v", err)
	}
	return nil
}

func readError(err error) error {
	return &journal.Error{Op: "backup", Kind: journal.KindInternal, Detail: "reading", Err: err}
}
