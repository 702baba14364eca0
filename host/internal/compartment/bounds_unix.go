//go:build unix

package compartment

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// cpuSlack is how many seconds of processor time the kernel allows beyond the bound. Within them the
// child watches itself. The kernel measures by the ticks of its clock, which may be a tenth or more too
// high on a busy machine, so from a kill alone the parent could not tell that the time was used up.
const cpuSlack = 1

// cpuTime is the processor time that this process has used.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0 // then only the kernel's limit works
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// killedByKernel reports whether a child was ended by a signal of the kernel's limit of processor time:
// SIGXCPU at the soft limit, SIGKILL at the hard one.
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

// setLimits lowers limits, including the hard ones, so that they cannot be raised again.
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

// lower lowers a limit if it is higher than value. Its type differs between systems.
func lower[T int64 | uint64](limit *T, value uint64) {
	if *limit < 0 || uint64(*limit) > value {
		*limit = T(value)
	}
}
