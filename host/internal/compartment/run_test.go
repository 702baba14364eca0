package compartment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// The test binary is its own child: "child" and the name of a work follow its name.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		os.Exit(Serve(context.Background(), os.Args[3:], os.Stdin, os.Stdout, os.Stderr, works[os.Args[2]]))
	}
	if len(os.Args) > 2 && os.Args[1] == "parent" {
		parent(os.Args[2])
		return
	}
	goleak.VerifyTestMain(m)
}

// parent is another role of the test binary, on systems that test it.
var parent func(file string)

var works = map[string]Work{
	"reverse": func(_ context.Context, job Job) (string, error) {
		out := ""
		for _, b := range job.Input {
			out = string(b) + out
		}
		return out, nil
	},
	"large": func(_ context.Context, job Job) (string, error) { return strconv.Itoa(len(job.Input)), nil },
	"refuse": func(context.Context, Job) (string, error) {
		return "", Refusal{strings.Repeat("no. ", 10_000)}
	},
	"fail":  func(context.Context, Job) (string, error) { return "", errors.New("the disk is full") },
	"panic": func(context.Context, Job) (string, error) { panic("a bug") },
	"exit":  func(context.Context, Job) (string, error) { os.Exit(0); return "", nil },
	"recurse": func(context.Context, Job) (string, error) {
		var f func(int) int
		f = func(n int) int { return f(n+1) + 1 }
		return strconv.Itoa(f(0)), nil
	},
	"spin": func(context.Context, Job) (string, error) {
		for n := 0; ; n++ {
			sink = n
		}
	},
	"wait": func(ctx context.Context, _ Job) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	},
	"grow": func(context.Context, Job) (string, error) {
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
			sink = len(all)
		}
	},
	"grow at once": func(_ context.Context, job Job) (string, error) {
		n, _ := strconv.Atoi(string(job.Input))
		b := make([]byte, n)
		for i := 0; i < n; i += 4096 {
			b[i] = 1
		}
		return strconv.Itoa(len(b)), nil
	},
	"write": func(context.Context, Job) (string, error) {
		return "", os.WriteFile("file", make([]byte, 1<<20), 0o600)
	},
	"tell": func(_ context.Context, job Job) (string, error) {
		for _, a := range job.Args {
			job.Tell(a)
		}
		return "told " + string(job.Input), nil
	},
	"facts": facts,
	"babble": func(context.Context, Job) (string, error) {
		os.Stdout.Write(appendMessage(nil, message{kind: messageDone, text: "first"}))
		return "second", nil
	},
	"garbage": func(context.Context, Job) (string, error) {
		os.Stdout.WriteString("garbage")
		select {}
	},
	"shout": func(context.Context, Job) (string, error) {
		for range 1000 {
			os.Stderr.Write(make([]byte, 1000))
		}
		return "", nil
	},
}

var sink int

// facts reports what a child can see of its environment.
func facts(context.Context, Job) (string, error) {
	dir, err := os.Getwd()
	return fmt.Sprintf("%s|%v|%v", dir, os.Environ(), err), err
}

func task(work string, input string) Task {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Task{
		Command: []string{self, "child", work}, Input: []byte(input),
		Memory: 1 << 30, CPU: time.Minute, Wall: time.Minute, FileBytes: 1 << 20,
	}
}

func TestResults(t *testing.T) {
	if got, err := Run(t.Context(), task("reverse", "abc")); err != nil || got != "cba" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Run(t.Context(), task("large", strings.Repeat("x", 8<<20))); err != nil ||
		got != strconv.Itoa(8<<20) {
		t.Errorf("%q, %v", got, err)
	}
}

// What the work reports arrives, in order.
func TestTold(t *testing.T) {
	k := task("tell", "all")
	k.Args = []string{"first", "--second", strings.Repeat("x", 2*maxText)}
	var told []string
	k.Told = func(text string) { told = append(told, text) }
	got, err := Run(t.Context(), k)
	if want := []string{"first", "--second", strings.Repeat("x", maxText)}; err != nil || got != "told all" ||
		!slices.Equal(told, want) {
		t.Errorf("%q, told %.100q, %v", got, told, err)
	}
}

// Whatever ends the child, the parent learns the reason, in time.
func TestEnds(t *testing.T) {
	prove.SkipShort(t, "it starts processes and waits for their ends")
	for _, c := range []struct {
		work   string
		change func(*Task)
		want   Reason
		text   string // in the error or in the child's output
	}{
		{"refuse", nil, Refused, "no. no. "},
		{"panic", nil, Refused, "a bug"},
		{"fail", nil, Failed, "the disk is full"},
		{"exit", nil, Crashed, ""},
		{"recurse", func(t *Task) { t.Memory = 4 << 30 }, Crashed, "stack"},
		{"spin", func(t *Task) { t.CPU = time.Second }, CPU, ""},
		{"spin", func(t *Task) { t.Wall = 200 * time.Millisecond }, Wall, ""},
		{"wait", func(t *Task) { t.Wall = 200 * time.Millisecond }, Wall, ""},
		{"grow", func(t *Task) { t.Memory = 64 << 20 }, Memory, ""},
		{"grow at once", func(t *Task) { t.Input = []byte(strconv.Itoa(4 << 30)) }, Memory, ""},
		{"garbage", nil, Crashed, "unknown kind"},
		{"babble", nil, Crashed, "after the last one"},
		{"no such work", nil, Refused, "nil pointer"},
		{"reverse", func(t *Task) { t.Command = nil }, Unstartable, "empty"},
		{"reverse", func(t *Task) { t.Command = []string{"/nowhere/to/be/found"} }, Unstartable, "no such file"},
		{"reverse", func(t *Task) { t.Dir = "/nowhere/to/be/found" }, Unstartable, "no such file"},
		{"reverse", func(t *Task) { t.Command = append(t.Command, "--strange") }, Unstartable, "not defined"},
	} {
		t.Run(c.work+" "+c.want.String(), func(t *testing.T) {
			k := task(c.work, "")
			if c.change != nil {
				c.change(&k)
			}
			got, err := Run(t.Context(), k)
			var e *Error
			if !errors.As(err, &e) || e.Reason != c.want {
				t.Fatalf("%q, %v; want %v\n%s", got, err, c.want, e.Output)
			}
			if !strings.Contains(err.Error()+e.Output, c.text) {
				t.Errorf("%q is missing in: %v\n%s", c.text, err, e.Output)
			}
			if len(e.Output) > 8<<10 || len(e.Text) > maxText {
				t.Errorf("%d bytes of output, %d of text", len(e.Output), len(e.Text))
			}
		})
	}
}

func TestOutputIsCut(t *testing.T) {
	if got, err := Run(t.Context(), task("shout", "")); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFilesAreBounded(t *testing.T) {
	k := task("write", "")
	k.Dir = t.TempDir()
	if _, err := Run(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	k.FileBytes = 1<<20 - 1
	_, err := Run(t.Context(), k)
	var e *Error
	if !errors.As(err, &e) || e.Reason != Failed || !strings.Contains(e.Text, "too large") {
		t.Errorf("%v", err)
	}
}

// The child has no environment, and the working directory of its task.
func TestNothingIsInherited(t *testing.T) {
	t.Setenv("BULKHEAD_TOKEN", "secret")
	k := task("facts", "")
	k.Dir = t.TempDir()
	dir, err := filepath.EvalSymlinks(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Run(t.Context(), k)
	if want := dir + "|[]|<nil>"; err != nil || got != want {
		t.Errorf("it sees %q, %v; want %q", got, err, want)
	}
}

// When the caller cancels, Run returns once the child has ended.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	k := task("wait", "")
	k.Alive = func(memory int64) {
		if memory < 0 || memory > k.Memory {
			t.Errorf("it uses %d bytes", memory)
		}
		cancel()
	}
	_, err := Run(ctx, k)
	var e *Error
	if !errors.As(err, &e) || e.Reason != Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := Run(ctx, k); !errors.As(err, &e) || e.Reason != Canceled {
		t.Errorf("when it was too late from the start: %v", err)
	}
}

func TestListen(t *testing.T) {
	alive := appendMessage(nil, message{kind: messageAlive, memory: 7})
	done := appendMessage(nil, message{kind: messageDone, text: "x", memory: 5})
	for _, c := range []struct {
		name string
		in   string
		last messageKind
		bad  bool
	}{
		{"nothing", "", 0, false},
		{"alive", string(alive), messageAlive, false},
		{"done", string(alive) + string(done), messageDone, false},
		{"cut off", string(alive) + string(done[:3]), messageAlive, false},
		{"after the end", string(done) + string(alive), messageAlive, true},
		{"garbage behind the end", string(done) + "garbage garbage", messageAlive, true},
		{"no messages", "Usage: program [flags]", 0, true},
		{"too long", "\x01\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00", 0, true},
		{"without end", strings.Repeat(string(alive), maxMessages+1), messageAlive, true},
	} {
		heard := 0
		last, memory, err := listen(strings.NewReader(c.in), func(int64) { heard++ }, nil)
		if last.kind != c.last || (err != nil) != c.bad || memory > 7 ||
			(heard > 0) != strings.HasPrefix(c.in, string(alive)) {
			t.Errorf("%s: %+v, memory %d, heard %d, %v", c.name, last, memory, heard, err)
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	for _, m := range []message{{kind: messageAlive, memory: 1 << 40}, {kind: messageRefused, text: "no"},
		{kind: messageDone, text: strings.Repeat("x", maxText)}} {
		f.Add(appendMessage(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := strings.NewReader(string(b))
		m, err := readMessage(r)
		if err != nil {
			return
		}
		again, err := readMessage(strings.NewReader(string(appendMessage(nil, m))))
		if err != nil || again != m {
			t.Errorf("%+v came back as %+v, %v", m, again, err)
		}
		if read := len(b) - r.Len(); read != headerSize+len(m.text) {
			t.Errorf("%d bytes were read for %d", read, headerSize+len(m.text))
		}
	})
}

// A program whose file was replaced while it runs starts itself, not the new file.
func TestItselfWhenReplaced(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Logf("%s has no name for a program whose file is gone", runtime.GOOS)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Executable([]string{self, "child"})
	if err != nil || runtime.GOOS == "linux" && got != "/proc/self/exe" {
		t.Errorf("%q, %v", got, err)
	}
	if other, err := Executable([]string{"sh"}); err != nil || !strings.HasSuffix(other, "/sh") {
		t.Errorf("another program: %q, %v", other, err)
	}
}
