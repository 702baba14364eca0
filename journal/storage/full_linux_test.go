package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// fullDir names the directory of a test binary that is started to fill a disk of its
// own, fullWay how the disk is bounded.
const (
	fullDir = "STORAGE_FULL_DIR"
	fullWay = "STORAGE_FULL_WAY"
)

func init() { children[fullDir] = beFull }

// A small file system of the test's own is filled: see fillFileSystem. It is a tmpfs in
// a mount namespace of a child, for which one has to be root or be allowed user
// namespaces. Where neither is so, the limit on the size of files is all that is tested.
func TestAFullFileSystem(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"tmpfs", "file size", "read only"} {
		t.Run(way, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fullDir+"="+t.TempDir(), fullWay+"="+way)
			if way != "file size" {
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
				if os.Getuid() != 0 {
					cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
					// Of both, or it could make no files there.
					cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
					cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
				}
			}
			out, err := cmd.CombinedOutput()
			var start *os.PathError // of fork and exec, when namespaces are not allowed
			if way != "file size" && (errors.As(err, &start) || cmd.ProcessState != nil &&
				cmd.ProcessState.ExitCode() == cannotMount) {
				t.Logf("no file system of the test's own: %v %s", err, out)
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

const cannotMount = 77

// beFull is the child.
func beFull(dir string) {
	var err error
	switch way := os.Getenv(fullWay); way {
	case "tmpfs", "read only":
		// So that nothing is seen outside of this process.
		if err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err == nil {
			err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=150m")
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(cannotMount)
		}
		if way == "tmpfs" {
			err = fillFileSystem(dir)
		} else {
			err = makeReadOnly(dir)
		}
	default:
		err = exceedFileSize(dir)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

const fullReserve = 48 << 20

func openFull(dir string) (*commitlog.Journal, error) {
	e, err := Open(dir, Options{IndexCacheBytes: 32 << 20, ReserveBytes: fullReserve})
	if err != nil {
		return nil, err
	}
	j, err := commitlog.Open(context.Background(), e, commitlog.Options{MaxPendingBytes: 4 << 20})
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return j, nil
}

// fillFileSystem fills the disk with commits until they are refused, which is before
// any write fails. What was acknowledged is read; when there is room again, commits
// are taken on the same handle. Then somebody else fills the disk to the brim: the
// journal does not open, and says why, and opens and is sound when there is room.
func fillFileSystem(dir string) error {
	ctx := context.Background()
	ballast, at := filepath.Join(dir, "ballast"), filepath.Join(dir, "journal")
	if err := os.WriteFile(ballast, make([]byte, 24<<20), 0o600); err != nil {
		return err
	}
	j, err := openFull(at)
	if err != nil {
		return err
	}
	var acknowledged atomic.Int64
	fill := func(round int) error {
		var next [4]int
		for full := false; !full; {
			errs := make([]error, len(next))
			var all sync.WaitGroup
			for w := range errs {
				all.Go(func() {
					for ; ; next[w]++ {
						c := journaltest.Commit("bank", fmt.Sprint("k", w, "-", round, "-", next[w]), 0,
							fmt.Sprint("c", w, "-", round, "-", next[w]), 1)
						c.Events[0].Data = journaltest.Noise(60<<10, uint64(next[w]))
						if _, errs[w] = journaltest.Append(j, c); errs[w] != nil {
							return
						}
						acknowledged.Add(1)
					}
				})
			}
			all.Wait()
			for _, err := range errs {
				if journal.KindOf(err) != journal.KindFull {
					return fmt.Errorf("a commit on a full disk: %w", err)
				}
			}
			err := j.Accepts("bank")
			if full = journal.KindOf(err) == journal.KindFull; !full && err != nil {
				return fmt.Errorf("accepts: %w", err)
			}
			// If not, a table has been written meanwhile, and its log given back.
		}
		if err := j.Err(); err != nil {
			return fmt.Errorf("the journal has failed: %w", err)
		}
		return readAll(j, acknowledged.Load())
	}
	if err := fill(0); err != nil {
		return err
	}
	first := acknowledged.Load()
	if err := os.Remove(ballast); err != nil {
		return err
	}
	for j.Accepts("bank") != nil {
		runtime.Gosched() // until it has looked again, which it does not do for each commit
	}
	if err := fill(1); err != nil {
		return err
	}
	if acknowledged.Load() <= first {
		return errors.New("nothing was taken when there was room again")
	}
	if err := j.Close(ctx); err != nil {
		return err
	}
	// To the brim, by somebody else.
	f, err := os.Create(ballast)
	if err != nil {
		return err
	}
	for chunk := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("filling the disk: %w", err)
	}
	if _, err := openFull(at); journal.KindOf(err) != journal.KindFull {
		return fmt.Errorf("opening on a full disk: %w", err)
	}
	if err := errors.Join(f.Close(), os.Remove(ballast)); err != nil {
		return err
	}
	if j, err = openFull(at); err != nil {
		return err
	}
	if err := errors.Join(readAll(j, acknowledged.Load()), j.Close(ctx)); err != nil {
		return err
	}
	fmt.Printf("%d commits, then %d more\n", first, acknowledged.Load()-first)
	return verified(at)
}

// readAll reads every event and one entity.
func readAll(j *commitlog.Journal, want int64) error {
	got := int64(0)
	err := j.Read(context.Background(), "bank", 0, 0, func(*journal.Event) error { got++; return nil })
	if err != nil || got != want {
		return fmt.Errorf("%d events are read of %d: %w", got, want, err)
	}
	v, err := j.Load(context.Background(), "bank", "k0-0-0", 0, func(*journal.Event) error { return nil })
	if err != nil || v != 1 {
		return fmt.Errorf("an entity is read at version %d: %w", v, err)
	}
	return nil
}

func verified(dir string) error {
	e, err := Open(dir, Options{ReserveBytes: -1})
	if err != nil {
		return err
	}
	report, err := verify.Run(context.Background(), e, verify.Options{})
	if err == nil && report.Found > 0 {
		err = fmt.Errorf("verify finds %v", report.Problems)
	}
	return errors.Join(err, e.Close())
}

// makeReadOnly has the journal opened on a file system that has become read-only: that
// is said, and nothing is harmed.
func makeReadOnly(dir string) error {
	at := filepath.Join(dir, "journal")
	j, err := openFull(at)
	if err != nil {
		return err
	}
	if _, err := journaltest.Append(j, journaltest.Commit("bank", "k0-0-0", 0, "c", 1)); err != nil {
		return err
	}
	if err := j.Close(context.Background()); err != nil {
		return err
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	if _, err := openFull(at); !errors.Is(err, syscall.EROFS) || journal.KindOf(err) != journal.KindInternal {
		return fmt.Errorf("opening where nothing can be written: %w", err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		return err
	}
	if j, err = openFull(at); err != nil {
		return err
	}
	if err := errors.Join(readAll(j, 1), j.Close(context.Background())); err != nil {
		return err
	}
	return verified(at)
}

// exceedFileSize has the kernel refuse files beyond a size, as a quota would, when the
// journal is opened again: that is said, and nothing is harmed.
func exceedFileSize(dir string) error {
	j, err := openFull(dir)
	if err != nil {
		return err
	}
	c := journaltest.Commit("bank", "k0-0-0", 0, "c", 1)
	if _, err := journaltest.Append(j, c); err != nil {
		return err
	}
	if err := j.Close(context.Background()); err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	small := limit
	small.Cur = 1 << 20 // Badger makes a file of 16 MiB first
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	if _, err := openFull(dir); journal.KindOf(err) != journal.KindFull {
		return fmt.Errorf("opening where files may not grow: %w", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if j, err = openFull(dir); err != nil {
		return err
	}
	if err := errors.Join(readAll(j, 1), j.Close(context.Background())); err != nil {
		return err
	}
	return verified(dir)
}
