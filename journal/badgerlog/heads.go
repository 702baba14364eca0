package badgerlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// heads records the last block of each log, in a file of its own, by which a log is found that has lost its end. A
// record is written after the log was synced, and is not synced itself. So it survives a kill, and it never claims a
// block that was not there.
//
//	u32   CRC-32 (IEEE) of the journal's lineage as u64 and the rest
//	u8    length of the log's name, the name
//	u64   sequence of its last batch
//	u64   first position of that
//
// Integers are big-endian. The latest record of a log counts.
type heads struct {
	lineage uint64
	logger  *slog.Logger
	torn    bool // what was read has something at its end that is no record

	mu   sync.Mutex // guards the fields below
	file *os.File   // nil if nothing is to be written
	size int64
	last map[journal.LogName]journal.Head
}

const (
	headsFile     = "heads"
	maxHeadsBytes = 1 << 20 // bytes from which on the file is begun again
)

// readHeads reads the file, as far as the lineage is known.
func (l *Log) readHeads() error {
	content, err := os.ReadFile(filepath.Join(l.dir, headsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	last, whole := decodeHeads(content, l.lineage)
	l.heads = &heads{
		lineage: l.lineage, logger: l.options.Logger, last: last, size: int64(whole), torn: whole < len(content),
	}
	return nil
}

// openHeads begins to write the file.
func (l *Log) openHeads() (err error) {
	if l.heads.lineage != l.lineage { // it was not known before
		if err := l.readHeads(); err != nil {
			return err
		}
	}
	l.heads.file, err = os.OpenFile(filepath.Join(l.dir, headsFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil && l.heads.torn { // records after the torn one would not be read
		err = l.heads.rewrite()
	}
	return err
}

func appendHead(b []byte, lineage uint64, log journal.LogName, head journal.Head) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(len(log)))
	b = append(b, log...)
	b = binary.BigEndian.AppendUint64(b, head.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(head.First))
	binary.BigEndian.PutUint32(b[start:], lineageCRC(lineage, b[start+4:]))
	return b
}

// lineageCRC is a checksum that differs from that of another journal.
func lineageCRC(lineage uint64, record []byte) uint32 {
	crc := crc32.ChecksumIEEE(binary.BigEndian.AppendUint64(nil, lineage))
	return crc32.Update(crc, crc32.IEEETable, record)
}

// decodeHeads is total. It ends at the first record that is not whole, and says where that is.
func decodeHeads(content []byte, lineage uint64) (last map[journal.LogName]journal.Head, whole int) {
	last = map[journal.LogName]journal.Head{}
	b := content
	for len(b) >= 5 {
		size := 5 + int(b[4]) + 16
		if len(b) < size || binary.BigEndian.Uint32(b) != lineageCRC(lineage, b[4:size]) {
			break
		}
		at := b[size-16:]
		last[journal.LogName(b[5:size-16])] = journal.Head{
			Sequence: binary.BigEndian.Uint64(at), First: journal.Position(binary.BigEndian.Uint64(at[8:])),
		}
		b = b[size:]
	}
	return last, len(content) - len(b)
}

// note records blocks that are on disk. They are, also if recording them fails.
func (h *heads) note(blocks []journal.Block) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var record []byte
	for i, b := range blocks {
		h.last[b.Log] = journal.Head{Sequence: b.Sequence, First: b.First}
		if i+1 == len(blocks) || blocks[i+1].Log != b.Log {
			record = appendHead(record, h.lineage, b.Log, h.last[b.Log])
		}
	}
	n, err := h.file.Write(record)
	if h.size += int64(n); err == nil && h.size > maxHeadsBytes {
		err = h.rewrite()
	}
	if err != nil && h.logger != nil {
		h.logger.Warn("the ends of the journal's logs could not be recorded", "error", err)
	}
}

// rewrite writes the file again, with one record for each log. A crash while it does loses the records. The caller
// holds mu, or nobody else has h yet.
func (h *heads) rewrite() error {
	var all []byte
	for _, log := range slices.Sorted(maps.Keys(h.last)) {
		all = appendHead(all, h.lineage, log, h.last[log])
	}
	if err := h.file.Truncate(0); err != nil {
		return err
	}
	n, err := h.file.Write(all)
	h.size = int64(n)
	return err
}

func (h *heads) close() error {
	if h == nil || h.file == nil {
		return nil
	}
	return h.file.Close()
}

// Heads implements journal.HeadStore.
func (l *Log) Heads() map[journal.LogName]journal.Head {
	l.heads.mu.Lock()
	defer l.heads.mu.Unlock()
	return maps.Clone(l.heads.last)
}

// ForgetHeads implements journal.HeadStore.
func (l *Log) ForgetHeads() error {
	l.heads.mu.Lock()
	defer l.heads.mu.Unlock()
	clear(l.heads.last)
	return Classify("rebuild", l.heads.rewrite())
}
