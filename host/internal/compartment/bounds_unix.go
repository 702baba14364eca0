//go:build unix

package compartment

import (
	"fmt"
	"syscall"
)

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
