package host_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
)

// victimDir names the directory of a test binary that is started to be killed.
const victimDir = "HOST_BACKUP_VICTIM_DIR"

// beVictim makes backups of dir/data and restores them until it is killed.
func beVictim(dir string) {
	for i := 0; ; i++ {
		name := filepath.Join(dir, fmt.Sprintf("backup-%d-%d", os.Getpid(), i))
		err := backup.Create(name, func(f *os.File) error {
			fmt.Println("backing up")
			_, err := host.BackupDir(context.Background(), filepath.Join(dir, "data"), f, service.BackupOptions{})
			return err
		})
		if err == nil {
			fmt.Println("restoring")
			_, err = host.RestoreDir(context.Background(), filepath.Join(dir, "restored"), []string{name},
				host.RestoreOptions{Force: true})
		}
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
}

// Whenever a process that makes and restores backups is killed, every file with the name of a backup is
// complete, and so is every directory with the name of a restored one.
func TestKilledBackupsAndRestores(t *testing.T) { // not beside others, as it starts processes; see TestMain
	rounds := prove.Rounds(t, 6, 200)
	rng := rand.New(rand.NewPCG(prove.Seed(t), 7))
	dir := t.TempDir()
	h := hosttest.New(t, func(o *host.Options) { o.Dir = filepath.Join(dir, "data") })
	h.MustDeploy("tally", testguest.Counter("tally"))
	for i := range 50 {
		h.MustSend(add(service.Key(fmt.Sprint("k", i%3))))
	}
	h.Stop()
	found := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(out)
		for range 1 + rng.IntN(4) {
			if !in.Scan() || strings.HasPrefix(in.Text(), "failed") {
				t.Fatalf("round %d: the victim says %q, %v", round, in.Text(), in.Err())
			}
		}
		// The time of the kill falls anywhere in the victim's next steps.
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		files, err := filepath.Glob(filepath.Join(dir, "backup-*[0-9]"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if _, err := backup.Check(t.Context(), []string{name}, backup.RestoreOptions{}); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		restored := filepath.Join(dir, "restored")
		if _, err := os.Stat(restored); err != nil {
			continue
		}
		found++
		h := hosttest.New(t, func(o *host.Options) { o.Dir = restored })
		if st, err := h.Status("tally"); err != nil || st.Head != 50 || st.State != service.StateRunning {
			t.Errorf("round %d: restored is %+v, %v", round, st, err)
		}
		h.Stop()
	}
	t.Logf("%d rounds of %d left a restored directory", found, rounds)
}
