//go:build unix && !linux

package compartment

import (
	"fmt"
	"os/exec"
	"syscall"
)

// prepare keeps the terminal's signals from the child. The child itself notices when its parent is
// gone; see watch.
func prepare(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// ownImage is empty: these systems have no path for it.
func ownImage() string { return "" }

// confine bounds this process permanently. Memory is bounded by watch only, as these systems count it in
// different ways.
func confine(b bounds) error {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 10); err != nil {
		return fmt.Errorf("priority: %w", err)
	}
	return setLimits([]limit{
		{"processor time", syscall.RLIMIT_CPU, uint64(b.cpuSeconds) + cpuSlack},
		{"file size", syscall.RLIMIT_FSIZE, uint64(b.fileBytes)},
		{"core dumps", syscall.RLIMIT_CORE, 0},
	})
}

func memoryInUse() uint64 { return goMemory() }
