package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
)

// progress shows on standard error how far a long operation has come: on a terminal in one line that is
// overwritten, elsewhere in one line per stage, with --json not at all.
type progress struct {
	w        io.Writer
	terminal bool
	silent   bool

	mu    sync.Mutex // guards all below
	stage string
	begun time.Time
	shown time.Time
	dirty bool // an unfinished line is on the terminal
}

func (e *env) progress() *progress {
	return &progress{w: e.rawErr, terminal: e.terminal, silent: e.json || e.programs}
}

// at reports that a stage has done so many of total; total 0 means unknown.
func (p *progress) at(stage string, done, total int64, unit func(int64) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent {
		return
	}
	now, stage := time.Now(), safetext.Text(stage) // some names come from a host or a file
	if stage != p.stage {
		p.finish(now)
		p.stage, p.begun, p.shown = stage, now, time.Time{}
		if !p.terminal {
			fmt.Fprintf(p.w, "%s ...\n", stage)
		}
	}
	if !p.terminal || now.Sub(p.shown) < 100*time.Millisecond && done != total {
		return
	}
	p.shown, p.dirty = now, true
	line := stage
	if total > 0 {
		line += fmt.Sprintf(" %s of %s (%d%%)", unit(done), unit(total), 100*done/total)
	} else if done > 0 {
		line += " " + unit(done)
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s, %.1f s", line, now.Sub(p.begun).Seconds())
}

// done ends the last stage.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(time.Now())
	p.stage = ""
}

// finish completes the line of the last stage with its time; p.mu is held.
func (p *progress) finish(now time.Time) {
	if p.stage == "" || p.silent {
		return
	}
	if p.dirty {
		fmt.Fprintf(p.w, "\r\x1b[K%s, done in %.1f s\n", p.stage, now.Sub(p.begun).Seconds())
	}
	p.dirty = false
}

// isTerminal reports whether w is a character device. /dev/null is one, too, where it does not matter.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func bytesUnit(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func countUnit(n int64) string { return fmt.Sprint(n) }
