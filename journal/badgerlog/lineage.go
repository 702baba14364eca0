package badgerlog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A file of another journal may be copied here by mistake. Its batches are whole, and may fit into a log of ours. So
// each journal has a lineage, a random number, and each entry of the log has it in Badger's field for the time of
// expiry. The number is so large that nothing ever expires. An entry with another lineage is never served. A journal
// that was begun before there were lineages has lineage 0, and is not checked.
//
// The number is in the file lineage. A copy is in the directory of the index, which may be another journal's, too. A
// backup does not have it: what is restored or imported is written with the lineage of the new journal.
const (
	lineageFile = "lineage"
	lineageBit  = 1 << 62 // as a time, far in the future
)

func encodeLineage(n uint64) []byte {
	text := fmt.Sprintf("%016x", n)
	return fmt.Appendf(nil, "%s %08x\n", text, crc32.ChecksumIEEE([]byte(text)))
}

// readLineage is total; ok is false if there is none, or it is damaged.
func readLineage(dir string) (n uint64, ok bool, err error) {
	content, err := os.ReadFile(filepath.Join(dir, lineageFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if _, err := fmt.Sscanf(string(content), "%x", &n); err != nil || string(encodeLineage(n)) != string(content) {
		return 0, false, nil
	}
	return n, true, nil
}

func writeLineage(dir string, n uint64) error {
	return writeSynced(filepath.Join(dir, lineageFile), encodeLineage(n))
}

// readLineage reads the journal's lineage, if its file is there and whole.
func (l *Log) readLineage() error {
	n, ok, err := readLineage(l.dir)
	if ok {
		l.lineage = n
	}
	return err
}

// findLineage finds the journal's lineage, or begins one if its log is empty. Where the file is missing or damaged, the
// log's first entry tells, or the copy.
func (l *Log) findLineage() error {
	if _, ok, err := readLineage(l.dir); ok || err != nil {
		return err
	}
	found := false
	err := guardRead(func() error {
		return l.db.View(func(txn *badger.Txn) error {
			o := badger.DefaultIteratorOptions
			o.PrefetchValues = false
			it := txn.NewIterator(o)
			defer it.Close()
			if it.Seek([]byte{'b'}); it.ValidForPrefix([]byte{'b'}) {
				l.lineage, found = it.Item().ExpiresAt(), true
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	if !found && l.options.LineageCopy != "" {
		// An empty log with a copy is no new log: it has lost everything.
		if l.lineage, found, err = readLineage(l.options.LineageCopy); err != nil {
			return err
		}
	}
	if !found {
		var random [8]byte
		_, _ = rand.Read(random[:]) // it never fails
		l.lineage = binary.LittleEndian.Uint64(random[:])>>3 | lineageBit
	}
	return writeLineage(l.dir, l.lineage)
}

// KeepLineage puts a copy of the lineage into another directory of the journal. false means that another one is there:
// it is a directory of another journal.
func KeepLineage(dir string, lineage uint64) (own bool, err error) {
	n, ok, err := readLineage(dir)
	if err != nil || ok {
		return n == lineage, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	return true, writeLineage(dir, lineage)
}

// entry makes an entry that is this journal's.
func (l *Log) entry(key, value []byte) *badger.Entry {
	e := badger.NewEntry(key, value)
	e.ExpiresAt = l.lineage
	return e
}

// checkLineage refuses an entry that is another journal's.
func (l *Log) checkLineage(item *badger.Item) error {
	if l.lineage == 0 || item.ExpiresAt() == l.lineage {
		return nil
	}
	log, first, sequence, _ := parseBlockKey(item.Key())
	return &journal.Error{Op: "read", Log: log, Kind: journal.KindCorrupt,
		Detail: fmt.Sprintf("batch %d at position %d belongs to another journal; "+
			"a file of ours was replaced by one of that journal", sequence, first)}
}
