package pebbleindex

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// instance is an open Pebble database. It has users; when the last one has left, and nobody may begin to use it, it
// is closed.
type instance struct {
	dir    string
	logger *slog.Logger
	db     *pebble.DB
	cache  *pebble.Cache // of the store
	lost   func()        // Options.Abandoned
	files  *files
	failed chan struct{} // closed when nothing is written any more
	closed chan struct{} // closed when it is closed or abandoned

	mu       sync.Mutex // guards all below; nothing of Pebble is called under it
	opened   bool
	users    int
	retired  bool
	err      error // why it has failed
	closeErr error
	waiting  map[*context.CancelCauseFunc]struct{} // who waits for a compaction
}

// abandoned counts the instances of this process that could not be closed.
var abandoned atomic.Int64

// openInstance opens or makes a database in dir. The options have their defaults.
func openInstance(dir string, o *Options, cache *pebble.Cache) (*instance, error) {
	cache.Ref()
	in := &instance{dir: dir, logger: o.Logger, cache: cache, lost: o.Abandoned,
		failed: make(chan struct{}), closed: make(chan struct{})}
	in.files = &files{FS: o.fs, room: o.Room, table: o.table, pause: o.pause, end: in.fail,
		closing: make(chan struct{})}
	in.files.opening.Store(true)
	err := guarded(true, func() (err error) {
		in.db, err = pebble.Open(dir, o.pebble(in))
		return err
	})
	in.files.opening.Store(false)
	in.mu.Lock()
	in.opened = true
	if in.err != nil { // Pebble does not know it, or has an error that came of it
		err = in.err
	}
	in.mu.Unlock()
	switch {
	case err == nil:
		return in, nil
	case in.db != nil:
		in.retire()
		<-in.closed
	case errors.As(err, new(*fatal)):
		in.abandon()
	default:
		in.cache.Unref()
	}
	return nil, openError(dir, err)
}

// use has the instance stay open until leave is called. The error says why it cannot be used.
func (in *instance) use() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		return in.err
	}
	if in.retired {
		return errClosed
	}
	in.users++
	return nil
}

func (in *instance) leave() {
	in.mu.Lock()
	in.users--
	last := in.users == 0 && in.retired
	in.mu.Unlock()
	if last {
		go in.close() // which waits for compactions
	}
}

// retire has nobody use the instance any more. It is closed when the last user has left. Only the first call counts.
func (in *instance) retire() {
	in.mu.Lock()
	if !in.retired {
		close(in.files.closing)
	}
	last := in.users == 0 && !in.retired
	in.retired = true
	in.mu.Unlock()
	if last {
		in.close()
	}
}

func (in *instance) close() {
	var f *fatal
	if errors.As(in.failure(), &f) {
		in.abandon()
		return
	}
	err := guarded(true, in.db.Close)
	if errors.As(err, &f) {
		in.fail(err)
		in.abandon()
		return
	}
	in.cache.Unref()
	in.closeErr = err
	close(in.closed)
}

// abandon gives the instance up: its memory and its goroutines stay as they are, and it is not touched again.
func (in *instance) abandon() {
	n := abandoned.Add(1)
	in.logger.Error("the journal's index cannot be closed; its memory is lost until the process ends",
		"index", in.dir, "abandoned", n)
	in.lost()
	close(in.closed)
}

// fail ends the instance: nothing is written any more, and it is closed once nobody uses it. Pebble may hold locks.
func (in *instance) fail(err error) {
	in.files.ended.Store(true)
	in.mu.Lock()
	first, opened := in.err == nil, in.opened
	if first {
		in.err = classify("index", err)
		close(in.failed)
	}
	in.mu.Unlock()
	if !first {
		return
	}
	in.logger.Error("the journal's index has failed", "index", in.dir, "error", err)
	if isDamage(err) || errors.As(err, new(*fatal)) {
		in.note(err)
	}
	if opened { // else Open does it
		go in.retire()
	}
}

// failure is why the instance has failed, nil if it has not.
func (in *instance) failure() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err
}

// damageFile is in the directory of an instance in which damage was found: what it says.
const damageFile = "DAMAGED"

// note has the next opening find that the instance is damaged.
func (in *instance) note(damage error) {
	if err := writeFile(in.files.FS, in.files.PathJoin(in.dir, damageFile), damage.Error()); err != nil {
		in.logger.Warn("damage of the index could not be noted", "damage", damage, "error", err)
	}
}

func writeFile(fs vfs.FS, path, text string) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text + "\n"))
	return errors.Join(err, f.Sync(), f.Close())
}

// do runs what writes, on another goroutine, so that its caller does not wait for an instance that has failed.
func (in *instance) do(call func(*pebble.DB) error) error {
	if err := in.use(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer in.leave()
		done <- guarded(false, func() error { return call(in.db) })
	}()
	select {
	case err := <-done:
		if failed := in.failure(); failed != nil {
			return failed
		}
		return err
	case <-in.failed:
		return in.failure()
	}
}

// Infof implements [pebble.Logger].
func (in *instance) Infof(format string, args ...any) { in.log(slog.LevelDebug, format, args) }

// Errorf implements [pebble.Logger].
func (in *instance) Errorf(format string, args ...any) { in.log(slog.LevelWarn, format, args) }

func (in *instance) log(level slog.Level, format string, args []any) {
	if in.logger.Enabled(context.Background(), level) {
		text := strings.TrimSpace(fmt.Sprintf(format, args...))
		in.logger.Log(context.Background(), level, "the journal's index: "+text)
	}
}

// Fatalf implements [pebble.Logger]: Pebble finds that its own state is wrong. It does not return, as Pebble expects.
// A goroutine of Pebble ends; one of a caller goes on with an error.
func (in *instance) Fatalf(format string, args ...any) {
	f := &fatal{strings.TrimSpace(fmt.Sprintf(format, args...))}
	in.fail(f)
	if withinGuarded() {
		panic(f)
	}
	runtime.Goexit()
}

// events are what Pebble tells of its work in the background. It may hold locks meanwhile.
func (in *instance) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: in.failedBehind,
		// Whoever reads has the error, too, and a compaction has its own.
		DataCorruption: func(i pebble.DataCorruptionInfo) { in.note(i.Details) },
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			in.log(slog.LevelDebug, "updates wait: %s", []any{i.Reason})
		},
	}
}

// failedBehind deals with an error of a compaction or of another thing that Pebble does by itself. Damage ends the
// instance. Pebble tries anything else again.
func (in *instance) failedBehind(err error) {
	if errors.Is(err, errOpening) {
		return
	}
	in.files.failed.Store(time.Now().UnixNano())
	if isDamage(err) {
		in.fail(err)
		return
	}
	in.mu.Lock()
	for cancel := range in.waiting {
		(*cancel)(err)
	}
	in.mu.Unlock()
	if in.failure() == nil {
		in.logger.Warn("the journal's index could not be compacted, which is tried again", "error", err)
	}
}

// whenTroubled has cancel called with the error of a compaction that fails, until forget is called.
func (in *instance) whenTroubled(cancel context.CancelCauseFunc) (forget func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.waiting == nil {
		in.waiting = map[*context.CancelCauseFunc]struct{}{}
	}
	in.waiting[&cancel] = struct{}{}
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		delete(in.waiting, &cancel)
	}
}
