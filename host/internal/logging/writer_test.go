package logging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader is the other end of the log. With a gate, each write blocks until the gate has a token for
// it; when it is gone, writes fail.
type reader struct {
	mu   sync.Mutex
	read bytes.Buffer
	gone bool
	gate chan struct{} // a write waits for one; nil: it never waits
}

func (r *reader) Write(b []byte) (int, error) {
	if r.gate != nil {
		<-r.gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return 0, os.ErrClosed
	}
	return r.read.Write(b)
}

func (r *reader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read.String()
}

// take forgets what was read.
func (r *reader) take() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read.Reset()
}

func (r *reader) leave(gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = gone
}

func notice(lines uint64) []byte { return fmt.Appendf(nil, "%d lines dropped\n", lines) }

// No caller waits while nobody reads the log. Lines that do not fit are dropped and counted, and a
// notice is written in their place.
func TestALogThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{gate: make(chan struct{})}
		w := NewWriter(r, WriterOptions{Bytes: 100, Notice: notice})
		line := func(i int) string { return fmt.Sprintf("line %03d\n", i) } // 9 bytes
		write := func(i int) {
			if n, err := w.Write([]byte(line(i))); n != 9 || err != nil {
				t.Fatal(n, err)
			}
		}
		write(0)
		synctest.Wait() // its write blocks
		for i := 1; i <= 30; i++ {
			write(i)
		}
		if d := w.Dropped(); d != 19 { // 11 lines are 99 bytes
			t.Errorf("%d lines are dropped, want 19", d)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closing while nobody reads: %v", err)
		}
		close(r.gate)
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		want := ""
		for i := range 12 {
			want += line(i)
		}
		if want += "19 lines dropped\n"; r.String() != want {
			t.Errorf("read is\n%s\nwant\n%s", r, want)
		}
		write(31)
		if d := w.Dropped(); d != 20 {
			t.Errorf("%d lines are dropped once it is closed, want 20", d)
		}
	})
}

// Failing writes do not disturb callers. When the reader returns, the notice tells how many lines
// it missed.
func TestAReaderThatHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{gone: true}
		w := NewWriter(r, WriterOptions{Notice: notice})
		for range 5 {
			_, _ = w.Write([]byte("one\ntwo\n"))
			synctest.Wait()
		}
		if d := w.Dropped(); d != 10 {
			t.Errorf("%d lines are dropped, want 10", d)
		}
		r.leave(false)
		_, _ = w.Write([]byte("back\n"))
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if r.String() != "back\n10 lines dropped\n" {
			t.Errorf("read is %q", r)
		}
	})
}

func TestCloseWithAReaderThatHasGone(t *testing.T) {
	r := &reader{gone: true}
	w := NewWriter(r, WriterOptions{Notice: notice})
	_, _ = w.Write([]byte("one\n"))
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Lines of concurrent callers stay whole and in each caller's order, and every lost line is
// counted.
func TestManyWriters(t *testing.T) {
	r := &reader{}
	w := NewWriter(r, WriterOptions{Bytes: 400})
	const writers, each = 8, 500
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for n := range each {
				_, _ = fmt.Fprintf(w, "%d %d\n", i, n)
			}
		})
	}
	all.Wait()
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := [writers]int{}
	lines := strings.Split(strings.TrimSuffix(r.String(), "\n"), "\n")
	for _, line := range lines {
		var i, n int
		if _, err := fmt.Sscanf(line, "%d %d", &i, &n); err != nil || n < last[i] {
			t.Fatalf("%q after %d: %v", line, last[i], err)
		}
		last[i] = n
	}
	if got := len(lines) + int(w.Dropped()); got != writers*each {
		t.Errorf("%d lines are there and %d dropped, of %d", len(lines), w.Dropped(), writers*each)
	}
}
