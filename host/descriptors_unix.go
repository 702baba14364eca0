//go:build unix

package host

import "syscall"

// descriptorLimit is the maximum number of descriptors of the process; 0 if unknown. Go has already raised
// the soft limit to the hard one.
func descriptorLimit() int64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	const noLimit = 1 << 30 // larger values mean no limit
	if n := uint64(l.Cur); n < noLimit {
		return int64(n)
	}
	return 0
}
