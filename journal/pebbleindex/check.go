package pebbleindex

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Check reads all there is in tables, from the disk. An error of kind journal.KindCorrupt says what is damaged.
func (s *Store) Check(ctx context.Context) error {
	return s.read(func(in *instance) error {
		levels, err := in.db.SSTables()
		if err != nil {
			return err
		}
		o := s.opt.pebble(in).MakeReaderOptions()
		for _, level := range levels {
			for _, t := range level {
				if err := ctx.Err(); err != nil {
					return err
				}
				path := in.files.PathJoin(in.dir, fmt.Sprintf("%s.sst", t.BackingSSTNum))
				if err := checkTable(ctx, in.files.FS, path, o); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
		}
		return nil
	})
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
