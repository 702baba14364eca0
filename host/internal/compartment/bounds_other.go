//go:build !unix

package compartment

import (
	"os"
	"os/exec"
	"time"
)

func prepare(*exec.Cmd) {}

func ownImage() string { return "" }

// confine: these systems have no limits that a process can set for itself. It
// watches its memory, and its parent its time.
func confine(bounds) error { return nil }

func memoryInUse() uint64 { return goMemory() }

func cpuTime() time.Duration { return 0 }

// killedByKernel: these systems have no limits that a kernel holds.
func killedByKernel(*os.ProcessState) bool { return false }
