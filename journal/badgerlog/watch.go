package badgerlog

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// watch is Badger's logger. It hands messages on, Badger's information as debugging, and counts the
// errors: Badger only logs that a sync of the value log has failed, and then reports success.
type watch struct {
	to *slog.Logger // may be nil

	mu     sync.Mutex // guards the fields below
	errors uint64     // lines so far that do not come from a reader
	last   string     // of these
}

// mark says how many errors were logged, to be handed to since.
func (w *watch) mark() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errors
}

// since returns an error if Badger has logged one after a mark.
func (w *watch) since(mark uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.errors == mark {
		return nil
	}
	return fmt.Errorf("%w: %s", errLogged, w.last)
}

func (w *watch) log(level slog.Level, format string, args []any) {
	if level < slog.LevelError && (w.to == nil || !w.to.Enabled(context.Background(), level)) {
		return
	}
	line := strings.TrimSpace(fmt.Sprintf(format, args...))
	if level >= slog.LevelError && !ofAReader(format) {
		w.mu.Lock()
		w.errors, w.last = w.errors+1, line
		w.mu.Unlock()
	}
	if w.to != nil {
		w.to.Log(context.Background(), level, "badger: "+line)
	}
}

func (w *watch) Errorf(f string, a ...any)   { w.log(slog.LevelError, f, a) }
func (w *watch) Warningf(f string, a ...any) { w.log(slog.LevelWarn, f, a) }
func (w *watch) Infof(f string, a ...any)    { w.log(slog.LevelDebug, f, a) }
func (w *watch) Debugf(f string, a ...any)   { w.log(slog.LevelDebug, f, a) }
