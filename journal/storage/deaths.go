package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A damaged block within a table ends the process when a compaction of Badger's
// meets it, and would again at each start. Reading every block at every start would
// take too long, so the storage counts how often it was opened and not closed: the
// third time within a short while every block is read, and damaged tables are put
// aside.
//
// The count is not synced: it is about processes that die, and what they wrote stays.
// A loss of power may take it, or leave a part of it, which counts as none; then the
// blocks are read a few openings later.
const (
	openedFile  = "opened" // "count seconds": so often in a row, at last then
	deepAfter   = 2        // openings that ended without a close
	deathsApart = 10 * time.Minute
)

// begin counts an opening and notes whether to look at everything.
func (d *directory) begin() error {
	path := filepath.Join(d.dir, openedFile)
	var count, at int64
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := time.Now().Unix()
	_, err = fmt.Sscan(string(content), &count, &at)
	if err != nil || count < 0 || now-at > int64(deathsApart/time.Second) {
		count = 0
	}
	if d.deep = count >= deepAfter; d.deep {
		count = 0
	}
	err = os.WriteFile(path, fmt.Appendf(nil, "%d %d\n", count+1, now), 0o600)
	d.begun = err == nil
	return err
}

// end takes it back.
func (d *directory) end() error { return os.Remove(filepath.Join(d.dir, openedFile)) }
