package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/durable"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// Backup writes a backup from which a host in another directory can go on from this moment: the logs of all
// services, the host's own log with the deployments, and the modules. The host keeps running meanwhile. The
// backup is complete only if Backup returns no error; readers detect an incomplete one.
func (h *Host) Backup(ctx context.Context, w io.Writer, o service.BackupOptions) (*backup.Manifest, error) {
	c, err := h.open()
	if err != nil {
		return nil, err
	}
	defer c.catalog.HoldAll()()
	return writeBackup(ctx, w, &pacedLogs{Journal: c.journal, turn: h.readers.turn(ctx, "")}, c.catalog.Modules, o)
}

func writeBackup(
	ctx context.Context, w io.Writer, logs backup.Source, modules *catalog.Modules, o service.BackupOptions,
) (*backup.Manifest, error) {
	var since *backup.Manifest
	if len(o.Since) > 0 {
		var err error
		if since, err = backup.ParseManifest(o.Since); err != nil {
			return nil, service.Errorf(service.KindInvalid, "the manifest of the backup to continue cannot be read: %w",
				err)
		}
	}
	m, err := backup.Write(ctx, w, logs, backup.Options{
		Since: since, Progress: batchProgress("backing up", o.Progress),
		Modules: func() (all []backup.Hash, err error) {
			digests, err := modules.List()
			for _, d := range digests {
				all = append(all, backup.Hash(d))
			}
			return all, err
		},
		Module: func(d backup.Hash) ([]byte, error) { return modules.Get(service.Digest(d)) },
	})
	return m, keepError("back up", "", err)
}

// batchProgress adapts a progress function for backups and exports; nil stays nil.
func batchProgress(stage string, to func(service.Progress)) func(backup.Progress) {
	if to == nil {
		return nil
	}
	return func(p backup.Progress) {
		to(service.Progress{Stage: stage, Done: int64(p.Batches), Total: int64(p.Total)})
	}
}

// keepError is the error for logs that could not be copied, measured or truncated.
func keepError(op string, name service.Name, err error) error {
	return service.FromJournal{Use: service.JournalKeep, Op: op, Service: name,
		Words: map[journal.ErrorKind]string{
			journal.KindInvalid:     "%s",
			journal.KindVersion:     "%s",
			journal.KindDuplicateID: "%s",
			journal.KindTrimmed:     "%s",
			journal.KindFull:        "the disk of the journal is full; make room",
			journal.KindLocked:      "another process uses this data directory; stop it, or back up through it",
			journal.KindCorrupt:     "the journal is damaged (%s); bulkhead journal verify says more",
			journal.KindCanceled:    "canceled",
		},
		Otherwise: "the journal was closed meanwhile; try again"}.Of(err)
}

// BackupDir is [Host.Backup] for a directory on which no host is running.
func BackupDir(ctx context.Context, dir string, w io.Writer, o service.BackupOptions) (*backup.Manifest, error) {
	opened, err := storage.Open(JournalDir(dir), storage.Options{})
	if err != nil {
		return nil, keepError("back up", "", err)
	}
	j, err := commitlog.Open(ctx, opened, commitlog.Options{})
	if err != nil {
		return nil, keepError("back up", "", errors.Join(err, opened.Close()))
	}
	modules, err := catalog.OpenModules(modulesDir(dir), catalog.ModuleOptions{})
	var m *backup.Manifest
	if err == nil {
		m, err = writeBackup(ctx, w, j, modules, o)
	}
	return m, errors.Join(err, j.Close(ctx))
}

// RestoreOptions are the choices of RestoreDir.
type RestoreOptions struct {
	// Force replaces a directory that is not empty. The old content is kept beside it, under the name that
	// RestoreDir returns.
	Force bool
	// NoVerify skips the verification of the restored journal.
	NoVerify bool
	// AnswerWindow is as in [verify.Options].
	AnswerWindow time.Duration
	// Progress, if not nil, reports how far a stage has come: restoring counts batches, verifying counts
	// events.
	Progress func(service.Progress)
}

// Restored is the result of RestoreDir.
type Restored struct {
	Manifest *backup.Manifest
	Report   *verify.Report // of the verification; nil without one
	Replaced string         // the new place of the directory's old content; empty if there was none
}

// RestoreDir makes a directory from backups, given as files in the sense of [backup.Files]. A host that opens
// it goes on from the end of these backups. RestoreDir works in a directory beside dir, and renames it only
// when everything is there and verified. So whatever happens, dir is either complete or unchanged. A killed
// restore leaves a directory beside dir; its name begins with a dot and shows what it is.
func RestoreDir(ctx context.Context, dir string, files []string, o RestoreOptions) (r Restored, err error) {
	dir = filepath.Clean(dir)
	taken, err := inUse(dir)
	if err != nil {
		return r, err
	}
	if taken && !o.Force {
		return r, service.Errorf(service.KindConflicting, "%s is not empty; name a new directory, or force it to be "+
			"replaced", dir)
	}
	parent, base := filepath.Dir(dir), filepath.Base(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return r, err
	}
	work, err := os.MkdirTemp(parent, "."+base+".restoring-")
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	if err := r.restore(ctx, work, files, o); err != nil {
		return r, err
	}
	if r.Report != nil && r.Report.Found > 0 {
		return r, service.Errorf(service.KindInternal, "the restored journal has %d problems, the first: %s",
			r.Report.Found, r.Report.Problems[0])
	}
	if err := syncTree(work); err != nil {
		return r, err
	}
	if taken {
		r.Replaced = fmt.Sprintf("%s.replaced-%s", dir, time.Now().UTC().Format("20060102T150405.000"))
		if err := os.Rename(dir, r.Replaced); err != nil {
			return r, err
		}
	}
	if err := os.Rename(work, dir); err != nil {
		return r, err
	}
	return r, durable.SyncDir(parent)
}

// inUse reports whether a directory has any content. It fails if a host is running on the directory.
func inUse(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || len(entries) == 0 {
		return false, err
	}
	if _, err := os.Stat(JournalDir(dir)); err == nil {
		e, err := storage.Open(JournalDir(dir), storage.Options{})
		if journal.KindOf(err) == journal.KindLocked {
			return true, keepError("restore", "", err)
		}
		if err == nil {
			return true, e.Close()
		}
	}
	return true, nil
}

// restore fills an empty directory.
func (r *Restored) restore(ctx context.Context, dir string, files []string, o RestoreOptions) error {
	modules, err := catalog.OpenModules(modulesDir(dir), catalog.ModuleOptions{})
	if err != nil {
		return err
	}
	opened, err := storage.Open(JournalDir(dir), storage.Options{})
	if err != nil {
		return keepError("restore", "", err)
	}
	tell := func(stage string, done uint64) {
		if o.Progress != nil {
			o.Progress(service.Progress{Stage: stage, Done: int64(done)})
		}
	}
	r.Manifest, err = backup.Restore(ctx, opened, files, backup.RestoreOptions{
		Module:   func(_ backup.Hash, module []byte) error { _, err := modules.Put(module); return err },
		Progress: batchProgress("restoring", o.Progress),
	})
	if err != nil {
		return errors.Join(err, opened.Close())
	}
	tell("deriving the index", 0)
	j, err := commitlog.Open(ctx, opened, commitlog.Options{})
	if err != nil {
		return errors.Join(err, opened.Close())
	}
	for _, log := range j.DamagedLogs() {
		return errors.Join(j.Damage(log), j.Close(ctx))
	}
	if err := j.Close(ctx); err != nil || o.NoVerify {
		return err
	}
	if opened, err = storage.Open(JournalDir(dir), storage.Options{}); err != nil {
		return err
	}
	report, err := verify.Run(ctx, opened, verify.Options{AnswerWindow: o.AnswerWindow,
		Progress: func(p verify.Progress) { tell("verifying", p.Events) }})
	r.Report = &report
	return errors.Join(err, opened.Close())
}

// syncTree makes a directory tree survive a loss of power. Its files are already synced, or can be derived
// from synced ones.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return durable.SyncDir(name)
	})
}
