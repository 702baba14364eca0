package pebbleindex

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// files is the file system that Pebble sees. Its first write that fails is the last one that is tried: after it
// nothing reaches the disk any more, and all writes seem to succeed. See the package's comment.
type files struct {
	vfs.FS
	room  func(bytes int64) error // says whether a compaction may write another file of so many bytes
	table int64                   // the size of such a file
	ended atomic.Bool
	end   func(error) // is told of the error, once

	opening atomic.Bool   // no compaction begins: Pebble's Open would wait for its end
	pause   time.Duration // between a compaction that failed and the next one
	failed  atomic.Int64  // when the latest one did, in nanoseconds
	closing chan struct{} // closed when nobody waits any more
}

// wait has a compaction wait if one has failed just now: Pebble would try again at once, for as long as it fails.
func (f *files) wait() {
	left := f.pause - time.Since(time.Unix(0, f.failed.Load()))
	if left <= 0 {
		return
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.closing:
	}
}

// ofCompactions is the category of files that Pebble can do without.
const ofCompactions vfs.DiskWriteCategory = "pebble-compaction"

// write does what changes files.
func (f *files) write(do func() error) error {
	if f.ended.Load() {
		return nil
	}
	if err := do(); err != nil {
		f.stop(err)
	}
	return nil
}

// stop has nothing be written any more.
func (f *files) stop(err error) {
	if !f.ended.Swap(true) {
		f.end(err)
	}
}

// Create implements [vfs.FS].
func (f *files) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if f.ended.Load() {
		return lostFile{}, nil
	}
	optional := category == ofCompactions
	if optional && f.opening.Load() {
		return nil, errOpening
	}
	var file vfs.File
	var err error
	switch {
	case optional:
		f.wait()
		err = f.room(f.table)
	case strings.HasPrefix(f.PathBase(name), "marker."):
		err = f.syncDir(f.PathDir(name))
	}
	if err == nil {
		file, err = f.FS.Create(name, category)
	}
	switch {
	case err == nil:
		return &writtenFile{File: file, files: f, optional: optional}, nil
	case optional:
		return nil, err
	}
	f.stop(err)
	return lostFile{}, nil
}

// syncDir makes the names in a directory survive a loss of power. Pebble syncs a marker's directory once, after it has
// made the marker. A loss of power before that sync could keep the marker and lose the file that it names.
func (f *files) syncDir(name string) error {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Link implements [vfs.FS].
func (f *files) Link(old, name string) error {
	return f.write(func() error { return f.FS.Link(old, name) })
}

// Remove implements [vfs.FS]. Pebble tries again at the next opening what it could not remove.
func (f *files) Remove(name string) error {
	if f.ended.Load() {
		return nil
	}
	return f.FS.Remove(name)
}

// RemoveAll implements [vfs.FS].
func (f *files) RemoveAll(name string) error {
	if f.ended.Load() {
		return nil
	}
	return f.FS.RemoveAll(name)
}

// Rename implements [vfs.FS].
func (f *files) Rename(old, name string) error {
	return f.write(func() error { return f.FS.Rename(old, name) })
}

// MkdirAll implements [vfs.FS].
func (f *files) MkdirAll(name string, mode os.FileMode) error {
	return f.write(func() error { return f.FS.MkdirAll(name, mode) })
}

// OpenReadWrite implements [vfs.FS].
func (f *files) OpenReadWrite(name string, category vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, category, o...)
	if err != nil {
		return nil, err
	}
	return &writtenFile{File: file, files: f}, nil
}

// ReuseForWrite implements [vfs.FS]. There is nothing to be used again without a write-ahead log.
func (f *files) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.Remove(old); err != nil {
		return nil, err
	}
	return f.Create(name, category)
}

// OpenDir implements [vfs.FS].
func (f *files) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &writtenFile{File: file, files: f}, nil
}

// Lock implements [vfs.FS]. The directory above is locked by whoever opens the store.
func (f *files) Lock(string) (io.Closer, error) { return lostFile{}, nil }

// Unwrap implements [vfs.FS].
func (f *files) Unwrap() vfs.FS { return f.FS }

// writtenFile is a file, or a directory, that is written or synced.
type writtenFile struct {
	vfs.File
	files    *files
	optional bool // an error of it is Pebble's to deal with
}

func (w *writtenFile) write(do func() error) error {
	if !w.optional {
		return w.files.write(do)
	}
	if w.files.ended.Load() {
		return nil
	}
	return do()
}

func (w *writtenFile) Write(b []byte) (n int, err error) {
	n = len(b)
	err = w.write(func() (err error) { n, err = w.File.Write(b); return err })
	if err == nil {
		n = len(b)
	}
	return n, err
}

func (w *writtenFile) WriteAt(b []byte, at int64) (n int, err error) {
	n = len(b)
	err = w.write(func() (err error) { n, err = w.File.WriteAt(b, at); return err })
	if err == nil {
		n = len(b)
	}
	return n, err
}

func (w *writtenFile) Preallocate(offset, length int64) error {
	return w.write(func() error { return w.File.Preallocate(offset, length) })
}

func (w *writtenFile) Sync() error     { return w.write(w.File.Sync) }
func (w *writtenFile) SyncData() error { return w.write(w.File.SyncData) }

func (w *writtenFile) SyncTo(length int64) (full bool, err error) {
	err = w.write(func() (err error) { full, err = w.File.SyncTo(length); return err })
	return full, err
}

func (w *writtenFile) Close() error {
	err := w.File.Close()
	return w.write(func() error { return err })
}

// lostFile takes what is written when nothing reaches the disk any more.
type lostFile struct{}

func (lostFile) Close() error                           { return nil }
func (lostFile) Read([]byte) (int, error)               { return 0, io.EOF }
func (lostFile) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (lostFile) Write(b []byte) (int, error)            { return len(b), nil }
func (lostFile) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (lostFile) Preallocate(int64, int64) error         { return nil }
func (lostFile) Stat() (vfs.FileInfo, error)            { return nil, os.ErrNotExist }
func (lostFile) Sync() error                            { return nil }
func (lostFile) SyncTo(int64) (bool, error)             { return false, nil }
func (lostFile) SyncData() error                        { return nil }
func (lostFile) Prefetch(int64, int64) error            { return nil }
func (lostFile) Fd() uintptr                            { return vfs.InvalidFd }
