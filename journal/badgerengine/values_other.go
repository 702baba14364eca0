//go:build !linux

package badgerengine

import (
	"errors"
	"io/fs"
	"os"
)

func syncData(f *os.File) error { return f.Sync() }

func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }

func nextData(_ *os.File, from, _ int64) (int64, error) { return from, nil }

func onDisk(info fs.FileInfo) int64 { return info.Size() }

// canPunch is false: that a sync of a file covers what was written through maps of it, and
// tells of every failure, is known of Linux only.
func canPunch(string) bool { return false }
