package compartment

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Task is a piece of work for a child process.
type Task struct {
	// Command is the program and its first arguments. It must lead to [Serve].
	Command []string
	// Args are arguments of the work.
	Args []string
	// Dir is the child's working directory, the only place where it needs to write.
	Dir string
	// Input is the input of the work.
	Input []byte
	// Memory bounds the child's memory, in bytes, in addition to what the program itself takes.
	Memory int64
	// CPU bounds the processor time. The kernel counts whole seconds.
	CPU time.Duration
	// Wall bounds the time from start to end.
	Wall time.Duration
	// FileBytes bounds each file that the child writes.
	FileBytes int64
	// Alive, if not nil, is called from time to time during the work, with the memory in use in
	// bytes, on the goroutine of Run.
	Alive func(memory int64)
	// Told, if not nil, is called with the progress that the work reports, in order, on the goroutine
	// of Run.
	Told func(text string)
}

// Run does a task in a child process and returns the result of its work. It returns only after the child
// has ended. Errors are *Error. It is safe for concurrent use.
func Run(ctx context.Context, t Task) (string, error) {
	// The system kills the child when the thread that started it ends; see prepare. So this goroutine
	// keeps its thread until the child has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	limited, cancel := context.WithTimeout(ctx, t.Wall)
	defer cancel()
	program, err := Executable(t.Command)
	if err != nil {
		return "", &Error{Reason: Unstartable, Err: err}
	}
	cmd := exec.CommandContext(limited, program, append(t.Command[1:len(t.Command):len(t.Command)],
		t.arguments()...)...)
	cmd.Args[0] = t.Command[0]
	cmd.Env = []string{} // nil would mean the parent's environment
	cmd.Dir = t.Dir
	cmd.Stdin = bytes.NewReader(t.Input)
	output := &head{room: 8 << 10}
	cmd.Stderr = output
	cmd.WaitDelay = 5 * time.Second // in case another process keeps the pipes open
	prepare(cmd)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return "", &Error{Reason: Unstartable, Err: err}
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		if ctx.Err() != nil {
			return "", &Error{Reason: Canceled, Err: ctx.Err()}
		}
		return "", &Error{Reason: Unstartable, Err: err}
	}
	last, memory, strange := listen(pipe, t.Alive, t.Told)
	if strange != nil {
		_ = cmd.Process.Kill() // its messages can no longer be trusted
	}
	waited := cmd.Wait()
	e := &Error{
		UsedWall: time.Since(start), UsedCPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
		UsedMemory: int64(memory), Output: output.String(), Err: strange,
	}
	switch {
	case last.kind == messageDone && waited == nil && strange == nil:
		return last.text, nil
	case last.kind == messageRefused:
		e.Reason, e.Text = Refused, last.text
	case last.kind == messageFailed:
		e.Reason, e.Text = Failed, last.text
	default:
		e.Reason = t.judge(ctx, limited, last, cmd.ProcessState, e)
		if e.Err == nil {
			e.Err = waited
		}
	}
	if e.Reason == Canceled {
		e.Err = ctx.Err()
	}
	return "", e
}

// judge finds out why a child has ended that did not report it.
func (t *Task) judge(ctx, limited context.Context, last message, state *os.ProcessState, e *Error) Reason {
	switch {
	case last.kind == messageMemory || outOfMemory(e.Output):
		return Memory
	case last.kind == messageCPU:
		return CPU
	case ctx.Err() != nil:
		return Canceled
	case limited.Err() != nil:
		return Wall
	case e.Err != nil && last.kind != 0: // its messages were malformed
		return Crashed
	case last.kind == 0: // not even the first message, so it has not read the input
		return Unstartable
	case state.Exited():
		return Crashed
	case killedByKernel(state) && e.UsedCPU >= t.cpuSeconds()*time.Second/10*9:
		return CPU
	}
	return Killed
}

// outOfMemory recognises the output of a Go program that got no more memory from the system. An input
// that makes the program write the same text gains nothing: it is refused either way.
func outOfMemory(output string) bool {
	for _, words := range []string{"out of memory", "cannot allocate memory", "failed to reserve memory",
		"failed to allocate"} {
		if strings.Contains(output, words) {
			return true
		}
	}
	return false
}

// Executable returns the program of a command. If a program's file is replaced while it runs, it would
// start a child from the new file, which may differ. So on systems that allow it, the path of the
// running program itself is returned.
func Executable(command []string) (string, error) {
	if len(command) == 0 || command[0] == "" {
		return "", errors.New("the command is empty")
	}
	if self, err := os.Executable(); err == nil && self == command[0] {
		if same := ownImage(); same != "" {
			return same, nil
		}
	}
	return exec.LookPath(command[0])
}

func (t *Task) cpuSeconds() time.Duration { return max(1, (t.CPU+time.Second-1)/time.Second) }

// arguments are read by parseBounds.
func (t *Task) arguments() []string {
	return append([]string{
		"--memory=" + strconv.FormatInt(t.Memory, 10),
		"--cpu=" + strconv.FormatInt(int64(t.cpuSeconds()), 10),
		"--file=" + strconv.FormatInt(t.FileBytes, 10), "--",
	}, t.Args...)
}

// listen reads the child's messages until they end. It returns the last one, and the memory that was
// last reported.
func listen(r io.Reader, alive func(int64), told func(string)) (last message, memory uint64, err error) {
	in := bufio.NewReader(r)
	for range maxMessages {
		m, err := readMessage(in)
		if err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, os.ErrClosed) {
			return last, memory, nil // the child's end may have cut a message
		}
		if err == nil && last.kind > messageAlive {
			err = errors.New("a message after the last one")
		}
		if err != nil {
			last.kind = min(last.kind, messageAlive) // ignore a result before the error
			return last, memory, err
		}
		last, memory = m, max(m.memory, memory)
		if m.kind == messageAlive && alive != nil {
			alive(int64(m.memory))
		}
		if m.kind == messageAlive && m.text != "" && told != nil {
			told(m.text)
		}
	}
	return message{kind: messageAlive}, memory, fmt.Errorf("more than %d messages", maxMessages)
}

// head keeps the beginning of what is written to it.
type head struct {
	room int
	b    bytes.Buffer
}

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.b.Write(p[:min(len(p), h.room-h.b.Len())])
	return len(p), nil
}

func (h *head) String() string { return h.b.String() }
