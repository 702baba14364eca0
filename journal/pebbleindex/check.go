package pebbleindex

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Check reads all there is in tables, from the disk. An error of kind journal.KindCorrupt says what is damaged. Tables
// that a compaction replaces meanwhile are passed over, and those that replace them are read.
func (s *Store) Check(ctx context.Context) error {
	return s.read(func(in *instance) error {
		o := s.opt.pebble(in).MakeReaderOptions()
		read, missing := map[string]bool{}, ""
		for done := false; !done; {
			paths, err := in.tables()
			if err != nil {
				return err
			}
			done = true
			for _, path := range paths {
				if err := ctx.Err(); err != nil {
					return err
				}
				if read[path] {
					continue
				}
				err := checkTable(ctx, in.files.FS, path, o)
				if errors.Is(err, os.ErrNotExist) && path != missing {
					missing, done = path, false // a table that is listed once more is really missing
					break
				}
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				read[path] = true
			}
		}
		return nil
	})
}

// tables are the paths of the tables that there are now.
func (in *instance) tables() (paths []string, err error) {
	levels, err := in.db.SSTables()
	for _, level := range levels {
		for _, t := range level {
			paths = append(paths, in.files.PathJoin(in.dir, fmt.Sprintf("%s.sst", t.BackingSSTNum)))
		}
	}
	return paths, err
}

func checkTable(ctx context.Context, fs vfs.FS, path string, o sstable.ReaderOptions) error {
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return firstOf(err, f.Close())
	}
	r, err := sstable.NewReader(ctx, readable, o) // which closes it if it fails
	if err != nil {
		return err
	}
	return firstOf(r.ValidateBlockChecksums(), r.Close())
}
