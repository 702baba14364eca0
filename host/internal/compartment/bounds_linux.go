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

// prepare makes the child die with its parent. It also keeps the terminal's signals from the child, so
// that the parent decides when an interrupt stops it.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// ownImage is a path of the running program that works even if its file has been replaced or removed.
func ownImage() string {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err != nil {
		return ""
	}
	return self
}

// dataSlack is what the kernel counts beyond the memory in use: stacks of threads, and what Go reserves
// in advance. In bytes. Within it the child watches itself; see watch.
const dataSlack = 256 << 20

// confine sets permanent bounds on this process.
func confine(b bounds) error {
	if err := closeInherited(); err != nil {
		return fmt.Errorf("open files: %w", err)
	}
	if err := lowerPriority(); err != nil {
		return fmt.Errorf("priority: %w", err)
	}
	// If the whole machine runs out of memory, this process is killed first. An error here does
	// not matter.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	// RLIMIT_DATA counts writable memory. RLIMIT_AS would also count addresses that Go's runtime
	// only reserves.
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

// closeInherited closes files that were inherited by mistake. Files that this process has opened are
// marked close-on-exec, as all files that Go opens are; inherited files are not marked.
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

// nice is the priority of a child. On a busy machine it gets a tenth of what an ordinary process gets;
// on an idle one it gets everything.
const nice = 10

// lowerPriority lowers the priority of every thread. The kernel has a priority for each thread, and a
// new thread inherits it from the thread that starts it. So the threads are walked again until a pass
// finds nothing to do.
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
			now, err := syscall.Getpriority(syscall.PRIO_PROCESS, id) // the kernel returns 20 - nice
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

// memoryInUse is the resident memory of this process, in bytes.
func memoryInUse() uint64 {
	n, err := statm(1)
	if err != nil {
		return goMemory()
	}
	return n
}

// statm reads a field of /proc/self/statm, in bytes: 1 is resident memory, 5 is data and stack.
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
