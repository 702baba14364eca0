//go:build unix

package compartment

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// cpuSlack is how many seconds of processor time the kernel allows beyond the bound,
// within which the child watches itself. The kernel holds its limit against ticks of its
// clock, which on a busy machine may be a tenth and more beyond what was really used:
// from a kill alone the parent could not tell that the time was used up.
const cpuSlack = 1

// cpuTime is the processor time that this process has used.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0 // the kernel's limit is left
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// killedByKernel reports whether a child ended by a signal with which the kernel holds a
// limit of processor time: SIGXCPU at the soft one, SIGKILL at the hard one.
func killedByKernel(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGXCPU)
}

// limit is one of the kernel's limits on a process.
type limit struct {
	name     string
	resource int
	value    uint64
}

// setLimits lowers limits, the hard ones too, so that nothing raises them again.
func setLimits(limits []limit) error {
	for _, l := range limits {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(l.resource, &now); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		lower(&now.Cur, l.value)
		lower(&now.Max, l.value)
		if err := syscall.Setrlimit(l.resource, &now); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// lower sets a limit, whose type differs from system to system, if it is higher.
func lower[T int64 | uint64](limit *T, value uint64) {
	if *limit < 0 || uint64(*limit) > value {
		*limit = T(value)
	}
}
