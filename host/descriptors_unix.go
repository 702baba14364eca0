//go:build unix

package host

import "syscall"

// descriptorLimit is how many descriptors the process may have; 0 if that is not known.
// Go has raised the soft limit to the hard one by now.
func descriptorLimit() int64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	const most = 1 << 30 // beyond it, it is none
	if n := uint64(l.Cur); n < most {
		return int64(n)
	}
	return 0
}
