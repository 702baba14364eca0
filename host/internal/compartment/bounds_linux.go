package compartment

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// prepare makes the child die with its parent and, so that an interrupt at the
// terminal stops the parent in its own time, not receive the terminal's signals.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// ownImage is the running program, even if its file has been replaced or removed.
func ownImage() string {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err != nil {
		return ""
	}
	return self
}

// dataSlack is what the kernel counts beyond what is in use: stacks of threads, and
// what Go takes in advance. Within it the child watches itself; see watch.
const dataSlack = 256 << 20

// confine bounds this process for good.
func confine(b bounds) error {
	if err := closeInherited(); err != nil {
		return fmt.Errorf("open files: %w", err)
	}
	if err := lowerPriority(); err != nil {
		return fmt.Errorf("priority: %w", err)
	}
	// If the whole machine runs out of memory, this process goes first. Not being
	// able to say so is no reason not to work.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	// RLIMIT_DATA counts what can be written to, which is what memory is needed for;
	// RLIMIT_AS would count the addresses that Go's runtime only reserves.
	data, err := statm(5)
	if err != nil {
		return err
	}
	return setLimits([]limit{
		{"memory", syscall.RLIMIT_DATA, data + uint64(b.memory) + dataSlack},
		{"processor time", syscall.RLIMIT_CPU, uint64(b.cpuSeconds) + cpuSlack},
		{"file size", syscall.RLIMIT_FSIZE, uint64(b.fileBytes)},
		{"open files", syscall.RLIMIT_NOFILE, 64},
		{"core dumps", syscall.RLIMIT_CORE, 0},
	})
}

// closeInherited closes what a careless parent, or whoever started that, has left
// open. What this process opened itself is marked to be closed on exec, as all
// that Go opens is; what came through an exec is not.
func closeInherited() error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range open {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if errno == 0 && flags&syscall.FD_CLOEXEC == 0 {
			if err := syscall.Close(fd); err != nil {
				return err
			}
		}
	}
	return nil
}

// nice is the priority of a child: on a busy machine it gets a tenth of what an
// ordinary process gets, on an idle one all that there is.
const nice = 10

// lowerPriority lowers the priority of every thread. The kernel keeps it by
// thread, and new threads have that of their makers: so it is done again until a
// pass finds nothing left to do.
func lowerPriority() error {
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		changed := false
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			now, err := syscall.Getpriority(syscall.PRIO_PROCESS, id) // the kernel's answer is 20 - nice
			if errors.Is(err, syscall.ESRCH) || err == nil && 20-now >= nice {
				continue
			}
			if err == nil {
				err = syscall.Setpriority(syscall.PRIO_PROCESS, id, nice)
			}
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
			changed = true
		}
		if !changed {
			return nil
		}
	}
}

// memoryInUse is what of this process is in memory, in bytes.
func memoryInUse() uint64 {
	n, err := statm(1)
	if err != nil {
		return goMemory()
	}
	return n
}

// statm reads a field of /proc/self/statm, in bytes. 1 is what is in memory, 5 data and stack.
func statm(field int) (uint64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text)
	if len(fields) <= field {
		return 0, fs.ErrInvalid
	}
	pages, err := strconv.ParseUint(string(fields[field]), 10, 64)
	return pages * uint64(os.Getpagesize()), err
}
