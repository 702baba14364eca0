//go:build unix

package host

import (
	"io/fs"
	"os"
	"syscall"
)

// lockDir locks a directory. The kernel releases the lock when the file is closed or the process dies.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written to it
		if err == syscall.EWOULDBLOCK {
			return nil, errLocked
		}
		return nil, &fs.PathError{Op: "flock", Path: dir, Err: err}
	}
	return f, nil
}

// ownerOf returns the owner of a file.
func ownerOf(info fs.FileInfo) (uid uint32, known bool) {
	s, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return 0, false
	}
	return s.Uid, true
}
