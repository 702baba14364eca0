package compartment

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// Refusal is an error of the work for which the input is at fault.
type Refusal struct{ Text string }

// Error implements error.
func (r Refusal) Error() string { return r.Text }

// Job is the input of a child's work.
type Job struct {
	// Args are [Task].Args.
	Args []string
	// Input is [Task].Input.
	Input []byte
	// Tell reports progress; see [Task].Told. A text that is longer than a message is cut.
	Tell func(text string)
}

// Work is what a child does. Its result is a short text, which [Run] returns.
type Work func(ctx context.Context, job Job) (string, error)

// maxInput bounds what a child reads, in bytes. More would exceed its memory anyway.
const maxInput = 1 << 30

// maxStack bounds the child's stacks, in bytes: deep recursion that the input causes ends soon.
const maxStack = 64 << 20

// Exit codes of a child. They say nothing beyond the messages; they are for people who look at the
// process.
const (
	exitDone    = 0
	exitRefused = 1
	exitUsage   = 2
	exitFailed  = 3
	exitMemory  = 4
	exitCPU     = 5
)

// bounds are what the parent requires of the child.
type bounds struct {
	args       []string // arguments of the work
	memory     int64    // bytes
	cpuSeconds int64
	fileBytes  int64
}

func parseBounds(args []string) (b bounds, err error) {
	flags := flag.NewFlagSet("compartment", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Int64Var(&b.memory, "memory", 0, "")
	flags.Int64Var(&b.cpuSeconds, "cpu", 0, "")
	flags.Int64Var(&b.fileBytes, "file", 0, "")
	if err := flags.Parse(args); err != nil {
		return b, err
	}
	if b.memory <= 0 || b.cpuSeconds <= 0 || b.fileBytes <= 0 {
		return b,
			fmt.Errorf(
				"this is for Bulkhead's own use: it wants --memory, --cpu and --file, and then what is for its work")
	}
	b.args = flags.Args()
	return b, nil
}

// Serve is the child's side of [Run]. It bounds this process permanently, reads the input and does the
// work. It returns the exit code. args are the arguments after the task's command.
//
// If the work returns a [Refusal], or panics, the input is at fault. Any other error is a failure of the
// host. ctx ends only with the process.
func Serve(ctx context.Context, args []string, in io.Reader, out, errs io.Writer, work Work) int {
	b, err := parseBounds(args)
	if err != nil {
		fmt.Fprintln(errs, err)
		return exitUsage
	}
	say := &speaker{to: out, base: memoryInUse()}
	if err := confine(b); err != nil {
		say.say(message{kind: messageFailed, text: "the process could not be bounded: " + err.Error()})
		return exitFailed
	}
	say.say(message{kind: messageAlive}) // the first message: from here on the input may be at fault
	// Near the limit the garbage collector works harder, before the limit is hit.
	debug.SetMemoryLimit(b.memory / 10 * 9)
	debug.SetMaxStack(maxStack)
	debug.SetTraceback("single")

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { watch(ctx, b, say) })

	input, err := io.ReadAll(io.LimitReader(in, maxInput))
	if err != nil {
		say.say(message{kind: messageFailed, text: "the input cannot be read: " + err.Error()})
		return exitFailed
	}
	result, err := guarded(ctx, Job{Args: b.args, Input: input, Tell: func(text string) {
		say.say(message{kind: messageAlive, text: text})
	}}, work)
	m, code := message{kind: messageDone, text: result}, exitDone
	switch err := err.(type) {
	case nil:
	case Refusal:
		m, code = message{kind: messageRefused, text: err.Text}, exitRefused
	default:
		m, code = message{kind: messageFailed, text: err.Error()}, exitFailed
	}
	if err != nil && outOfMemory(err.Error()) {
		m, code = message{kind: messageMemory}, exitMemory
	}
	say.say(m)
	return code
}

func guarded(ctx context.Context, job Job, work Work) (result string, err error) {
	defer func() {
		if bug := recover(); bug != nil {
			err = Refusal{fmt.Sprintf("it brings out a bug: %v", bug)}
		}
	}()
	return work(ctx, job)
}

// speaker sends messages, and at most one that is the last.
type speaker struct {
	base uint64 // memory of the program itself, which is not counted

	mu    sync.Mutex // guards the fields below
	to    io.Writer
	ended bool
}

func (s *speaker) say(m message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = m.kind != messageAlive
	m.memory = s.used()
	_, _ = s.to.Write(appendMessage(nil, m)) // if the parent is gone, this process ends too
}

func (s *speaker) used() uint64 {
	now := memoryInUse()
	return now - min(s.base, now)
}

// How often the child checks itself, and how often it reports.
const (
	watchEvery = 10 * time.Millisecond
	tellEvery  = 100 * time.Millisecond
)

// watch ends the process when its memory or its processor time is used up, or when its parent is gone.
// The kernel's limits catch what happens between two checks.
func watch(ctx context.Context, b bounds, s *speaker) {
	parent := os.Getppid()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	told := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if s.used() > uint64(b.memory) {
				s.say(message{kind: messageMemory})
				os.Exit(exitMemory)
			}
			if cpuTime() >= time.Duration(b.cpuSeconds)*time.Second {
				s.say(message{kind: messageCPU})
				os.Exit(exitCPU)
			}
			if os.Getppid() != parent {
				os.Exit(exitFailed)
			}
			if now.Sub(told) >= tellEvery {
				told = now
				s.say(message{kind: messageAlive})
			}
		}
	}
}
