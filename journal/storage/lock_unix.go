//go:build unix

package storage

import (
	"os"
	"syscall"
)

// lockDir takes the lock of a directory, for one writer or many readers, and
// returns the file that holds it until it is closed. The kernel lets go of it when
// the process dies. Badger locks its own two directories in the same way.
func lockDir(dir string, shared bool) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if shared {
		how = syscall.LOCK_SH
	}
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, errLocked
		}
		return nil, &os.PathError{Op: "flock", Path: dir, Err: err}
	}
	return f, nil
}
