package badgerlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// filesFile lists the finished files of values, those to which nothing is written any more: a line of JSON, and a
// line with the CRC-32 (IEEE) of the lineage as u64 and that line, in hex. By this list a file that is missing or
// was cut short is noticed, and files are found that have values after some version.
const filesFile = "FILES"

// finished is what the list has of a file, by its number.
type finished struct {
	Size    int64  `json:"size"`    // 0: it was collected and may be removed
	Version uint64 `json:"version"` // of the last write when it was finished
}

func encodeFiles(files map[uint32]finished, lineage uint64) []byte {
	text, _ := json.Marshal(files) // numbers only, so it never fails
	return fmt.Appendf(nil, "%s\n%08x\n", text, lineageCRC(lineage, text))
}

// decodeFiles is total. A list that is damaged or of another journal is none.
func decodeFiles(content []byte, lineage uint64) (files map[uint32]finished) {
	text, _, _ := bytes.Cut(content, []byte("\n"))
	if json.Unmarshal(text, &files) != nil || !bytes.Equal(encodeFiles(files, lineage), content) {
		return nil
	}
	return files
}

// missFiles reads the list. It leaves a sign of each file that is missing or was cut short, and removes those that were
// collected.
func (l *Log) missFiles() error {
	content, err := os.ReadFile(filepath.Join(l.badger(), filesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	there, listed := listValues(l.badger())
	if err = errors.Join(err, listed); err != nil {
		return err
	}
	sizes := map[uint32]int64{}
	for _, f := range there {
		sizes[f.id] = f.size
	}
	l.files = decodeFiles(content, l.lineage)
	for id, f := range l.files {
		path := valuesPath(l.badger(), id)
		switch {
		case f.Size == 0:
			err = removeIfThere(path)
		case sizes[id] < f.Size:
			var sign *os.File // it may be there already, and be the quarantined file itself
			if sign, err = os.OpenFile(path+asideSuffix, os.O_CREATE|os.O_RDONLY, 0o600); err == nil {
				err = sign.Close()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle syncs the names of Badger's files and lists the finished files of values, if there may be new ones. The caller
// holds writing.
func (l *Log) settle() error {
	changed, err := l.names.settle()
	if err != nil || !changed {
		return err
	}
	return l.list()
}

// list writes the list if it has changed. The caller holds writing.
func (l *Log) list() error {
	there, err := listValues(l.badger())
	if err != nil || len(there) == 0 {
		return err
	}
	files := map[uint32]finished{}
	for _, f := range there[:len(there)-1] {
		old, ok := l.files[f.id]
		switch {
		case ok:
			files[f.id] = old
		case f.id != l.moving && f.size > logHeaderSize: // Badger removes an empty one when it is opened
			files[f.id] = finished{f.size, l.version}
		}
	}
	l.files = files
	content := encodeFiles(files, l.lineage)
	if bytes.Equal(content, l.listed) {
		return nil
	}
	l.listed = content
	return writeSynced(filepath.Join(l.badger(), filesFile), content)
}

// endOf returns the version of the last write before the file with this number was begun, as far as the list knows.
func (l *Log) endOf(id uint32) (version uint64) {
	for other, f := range l.files {
		if other < id {
			version = max(version, f.Version)
		}
	}
	return version
}
