package host

import (
	"os"
	"syscall"
)

// widenTable has the system make its table of the process's descriptors large enough for so many.
// Linux doubles the table when it is full, and waits until all processors have seen that
// (expand_fdtable and synchronize_rcu, in its fs/file.c). Until then, some ten milliseconds, every
// open and every accept waits, the journal's too. So it is done before anybody waits.
func widenTable(n int64) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return // then it grows when it has to
	}
	defer f.Close()
	high, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_DUPFD_CLOEXEC, uintptr(n-1))
	if errno == 0 {
		_ = syscall.Close(int(high)) // nothing was written
	}
}
