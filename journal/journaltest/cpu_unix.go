//go:build unix

package journaltest

import (
	"syscall"
	"time"
)

// CPUTime is what the process has had of the processors, all that runs beside a
// measurement included. It says more than the clock on a machine that others use too.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
