package host

import (
	"os"
	"syscall"
)

// widenTable makes the system enlarge the process's descriptor table for n descriptors. Linux doubles the
// table when it is full and then waits for all processors (expand_fdtable and synchronize_rcu, in its
// fs/file.c). During these ten or so milliseconds every open and accept waits, also in the journal. So this
// is done before there is any work.
func widenTable(n int64) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return // it then grows on demand
	}
	defer f.Close()
	high, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_DUPFD_CLOEXEC, uintptr(n-1))
	if errno == 0 {
		_ = syscall.Close(int(high)) // nothing was written
	}
}
