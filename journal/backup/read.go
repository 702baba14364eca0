package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// Handler gets what a file holds, in its order. Functions that are nil are not
// called; an error of one ends the reading and is returned as it is. Bytes are valid
// during the call only.
type Handler struct {
	Head   func(Head) error
	Batch  func(b *journal.Batch, data []byte) error
	Commit func(*journal.Committed) error // each commit of a batch, before Batch
	Module func(digest Hash, module []byte) error
}

// Read reads a file and checks all of it: checksums, every batch and record,
// the chain of batches in each log, digests of modules, and that the manifest says
// what is there. Only if it returns without an error is the file whole; what the
// handler got until then is what was written. What is wrong with the file is an error
// of kind KindCorrupt.
func Read(in io.Reader, h Handler) (*Manifest, error) {
	r, err := newReader(in)
	if err != nil {
		return nil, err
	}
	c := content{reader: r, handler: h, seen: map[journal.LogName]*Log{}, modules: map[Hash]bool{}}
	for {
		kind, content, pass, err := r.next()
		if err != nil {
			return nil, err
		}
		if kind == recordEnd {
			return c.end(content)
		}
		if err := c.record(kind, content); err != nil {
			return nil, err
		}
		pass()
	}
}

// content is what has been read of a file.
type content struct {
	*reader
	handler Handler
	head    Head
	batches uint64
	seen    map[journal.LogName]*Log
	modules map[Hash]bool
}

func (c *content) record(kind byte, data []byte) error {
	if first := c.size == uint64(len(magic)); first != (kind == recordHead) {
		return c.damaged("the head of the file is not where it should be")
	}
	switch kind {
	case recordHead:
		if err := c.descriptor(data, &c.head); err != nil {
			return err
		}
		if c.head.ID == "" {
			return c.damaged("the head has no id")
		}
		if c.handler.Head != nil {
			return c.handler.Head(c.head)
		}
		return nil
	case recordBatch:
		return c.batch(data)
	case recordModule:
		return c.module(data)
	}
	return c.damaged("a record of kind %d, which this program does not know", kind)
}

func (c *content) batch(data []byte) error {
	var theirs error // of the handler, which goes back as it is
	yield := c.handler.Commit
	if yield != nil {
		yield = func(x *journal.Committed) error { theirs = c.handler.Commit(x); return theirs }
	}
	b, err := format.ReadBatch(data, yield)
	if theirs != nil {
		return theirs
	}
	if err != nil {
		return c.damaged("%v", err)
	}
	l := c.seen[b.Log]
	if l == nil {
		l = &Log{Name: b.Log}
		c.seen[b.Log] = l
	} else if before := l.end(); b.Follows(&before) != "" {
		return c.damaged("log %s: %s", b.Log, b.Follows(&before))
	}
	l.take(&b)
	c.batches++
	if c.handler.Batch != nil {
		return c.handler.Batch(&b, data)
	}
	return nil
}

// take notes a batch that is the log's last now.
func (l *Log) take(b *journal.Batch) {
	l.Sequence, l.First, l.Position, l.Time, l.Hash = b.Sequence, b.First, b.Next-1, b.Time, b.Hash
	l.Batches++
	l.Events += uint64(b.Events)
}

func (c *content) module(data []byte) error {
	if len(data) < len(Hash{}) {
		return c.damaged("a module without its digest")
	}
	digest, module := Hash(data), data[len(Hash{}):]
	if sha256.Sum256(module) != digest {
		return c.damaged("module %x is not what its digest says", digest)
	}
	c.modules[digest] = true
	if c.handler.Module != nil {
		return c.handler.Module(digest, module)
	}
	return nil
}

// end checks the manifest and that nothing is behind it.
func (c *content) end(data []byte) (*Manifest, error) {
	var m Manifest
	if err := c.descriptor(data, &m); err != nil {
		return nil, err
	}
	at := c.size
	var sum Hash
	c.sum.Sum(sum[:0])
	footer := make([]byte, footerSize+1)
	n, err := io.ReadFull(c.r, footer)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, readError(err)
	}
	switch {
	case n < footerSize:
		return nil, c.damaged("the file ends before its footer")
	case n > footerSize:
		return nil, c.damaged("there is something behind the end of the file")
	case string(footer[8:footerSize]) != footerMagic || binary.LittleEndian.Uint64(footer) != at:
		return nil, c.damaged("the footer is not that of this file")
	case m.Head != c.head:
		return nil, c.damaged("the manifest is that of another file")
	case m.Bytes != at || m.SHA256 != sum || m.Batches != c.batches:
		return nil, c.damaged("the file is not the one that its manifest describes")
	}
	for i := range m.Logs {
		l := &m.Logs[i]
		seen := c.seen[l.Name]
		if seen == nil && l.Batches == 0 {
			continue
		}
		if seen == nil || *seen != *l {
			return nil, c.damaged("log %s is not as the manifest describes it", l.Name)
		}
		delete(c.seen, l.Name)
	}
	here := 0
	for _, module := range m.Modules {
		if module.Here {
			here++
			if !c.modules[module.Digest] {
				return nil, c.damaged("module %x is not in the file", module.Digest)
			}
		}
	}
	if len(c.seen) > 0 || here != len(c.modules) {
		return nil, c.damaged("there is more in the file than its manifest describes")
	}
	return &m, nil
}

// ReadHead reads the head of a file.
func ReadHead(in io.Reader) (Head, error) {
	var h Head
	r, err := newReader(in)
	if err != nil {
		return h, err
	}
	kind, content, _, err := r.next()
	switch {
	case err != nil:
		return h, err
	case kind != recordHead:
		return h, r.damaged("the head of the file is not where it should be")
	}
	if err := r.descriptor(content, &h); err != nil {
		return h, err
	}
	if h.ID == "" {
		return h, r.damaged("the head has no id")
	}
	return h, nil
}

// ReadManifest reads the manifest of a file of that size from its end. It does not
// look at the rest.
func ReadManifest(in io.ReaderAt, size int64) (*Manifest, error) {
	unfinished := errorf(journal.KindCorrupt, "the file does not end as a finished one does: it was not finished, or "+
		"its end is lost")
	var footer [footerSize]byte
	if size < int64(len(magic)+footerSize) {
		return nil, unfinished
	}
	if _, err := in.ReadAt(footer[:], size-footerSize); err != nil {
		return nil, readError(err)
	}
	at := binary.LittleEndian.Uint64(footer[:])
	if string(footer[8:]) != footerMagic || at > uint64(size-footerSize) {
		return nil, unfinished
	}
	r := &reader{r: bufio.NewReader(io.NewSectionReader(in, int64(at), size-footerSize-int64(at))), size: at}
	kind, content, _, err := r.next()
	if err != nil {
		return nil, err
	}
	if kind != recordEnd || at+uint64(recordHeader+len(content)+footerSize) != uint64(size) ||
		len(content) > maxDescriptor {
		return nil, unfinished
	}
	return ParseManifest(content)
}
