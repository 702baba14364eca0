//go:build !unix

package compartment

import (
	"os"
	"os/exec"
	"time"
)

func prepare(*exec.Cmd) {}

func ownImage() string { return "" }

// confine does nothing: on these systems a process cannot limit itself. The child watches its memory,
// and the parent watches its time.
func confine(bounds) error { return nil }

func memoryInUse() uint64 { return goMemory() }

func cpuTime() time.Duration { return 0 }

// killedByKernel is always false: these systems have no such limits.
func killedByKernel(*os.ProcessState) bool { return false }
