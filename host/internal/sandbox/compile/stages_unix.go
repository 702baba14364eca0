//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package compile

import (
	"os"
	"syscall"
)

// lockStage locks a stage. It creates the lock file if there is none. The lock holds until the file is closed
// or the process ends, in whatever way. A nil file without an error means that another process has the lock.
func lockStage(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
	case nil:
		return f, nil
	case syscall.EWOULDBLOCK:
		return nil, f.Close()
	default:
		_ = f.Close() // nothing was written to it
		return nil, err
	}
}
