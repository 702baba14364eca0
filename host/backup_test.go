package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
)

// writeBackup makes a backup of a host in a file.
func writeBackup(t *testing.T, h *hosttest.Host, name string, since *backup.Manifest) *backup.Manifest {
	t.Helper()
	var m *backup.Manifest
	var o service.BackupOptions
	err := backup.Create(name, func(f *os.File) (err error) {
		if since != nil {
			if o.Since, err = json.Marshal(since); err != nil {
				return err
			}
		}
		m, err = h.Backup(t.Context(), f, o)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// restored is a host on restored backups.
func restored(t *testing.T, files ...string) *hosttest.Host {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new")
	r, err := host.RestoreDir(t.Context(), dir, files, host.RestoreOptions{})
	if err != nil || r.Report.Found > 0 {
		t.Fatal(r.Report, err)
	}
	return hosttest.New(t, func(o *host.Options) { o.Dir = dir })
}

// Backups are made under load, each continuing the last one. A restored host has everything that was
// acknowledged before the last one began, and goes on.
func TestBackupUnderLoadServesAgain(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	more := make(chan bool, 400)
	var load sync.WaitGroup
	for w := range 4 {
		load.Go(func() {
			for range more {
				if _, err := h.Send(context.Background(), add(service.Key(fmt.Sprint("w", w)))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	dir := t.TempDir()
	var files []string
	var since *backup.Manifest
	var acknowledged service.Position
	for i := range 4 {
		loadAgain(more)
		h.MustSend(add("k"))
		acknowledged = h.MustSend(add("k")).Position
		files = append(files, filepath.Join(dir, fmt.Sprint(i)))
		since = writeBackup(t, h, files[i], since)
	}
	close(more)
	load.Wait()
	again := restored(t, files...)
	st, err := again.Status("tally")
	if err != nil || st.State != service.StateRunning || st.Head < acknowledged {
		t.Fatalf("restored: %+v, %v", st, err)
	}
	if r := again.MustSend(add("k")); string(r.Data) != "9" || r.Version != 9 || r.Position != st.Head+1 {
		t.Errorf("the restored host goes on with %+v", r)
	}
}

// A directory that exists stays unchanged until the new one is complete.
func TestRestoreKeepsWhatWasThere(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("k"))
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	writeBackup(t, h, full, nil)
	text, err := os.ReadFile(full)
	if err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(dir, "torn")
	if err := os.WriteFile(torn, text[:len(text)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(data, "precious")
	if err := os.WriteFile(precious, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := host.RestoreDir(t.Context(), data, []string{full}, host.RestoreOptions{}); service.KindOf(
		err) != service.KindConflicting {
		t.Errorf("restoring over something: %v", err)
	}
	if _, err := host.RestoreDir(t.Context(), data, []string{torn}, host.RestoreOptions{Force: true}); journal.KindOf(
		err) != journal.KindCorrupt {
		t.Errorf("restoring a torn file: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".data*")); len(left) > 0 {
		t.Errorf("a failed restore leaves %v", left)
	}
	if old, err := os.ReadFile(precious); string(old) != "old" {
		t.Error(err)
	}
	r, err := host.RestoreDir(t.Context(), data, []string{full}, host.RestoreOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if old, err := os.ReadFile(filepath.Join(r.Replaced, "precious")); string(old) != "old" {
		t.Error(err)
	}
	// A directory that a host uses is not changed, even by force.
	if _, err := host.RestoreDir(t.Context(), h.Dir(), []string{full},
		host.RestoreOptions{Force: true}); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("restoring over a running host: %v", err)
	}
	// A closed host cannot make a backup.
	h.Stop()
	if _, err := h.Backup(t.Context(), new(bytes.Buffer), service.BackupOptions{}); service.KindOf(
		err) != service.KindUnavailable {
		t.Errorf("a backup of a closed host: %v", err)
	}
	if _, err := host.BackupDir(t.Context(), h.Dir(), new(bytes.Buffer), service.BackupOptions{}); err != nil {
		t.Errorf("a backup of its directory: %v", err)
	}
}
