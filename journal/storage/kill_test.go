package storage

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// killKeys are the entities that a victim writes to.
const killKeys = 50

// victimDir names the journal of a test binary that is started to be killed.
const victimDir = "STORAGE_VICTIM_DIR"

// beVictim appends until somebody kills it, and says on its output what was
// acknowledged: id, key, version and position a line.
func beVictim(dir string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// small, so that there are several files
	e, err := Open(dir, Options{IndexCacheBytes: 8 << 20, ValueFileBytes: 4 << 20})
	if err != nil {
		fail(err)
	}
	j, err := commitlog.Open(context.Background(), e, commitlog.Options{})
	if err != nil {
		fail(err)
	}
	const keys = killKeys
	var versions [keys]journal.Version
	for k := range versions {
		versions[k], err = j.Load(context.Background(), "bank", fmt.Sprint("k", k), 0,
			func(*journal.Event) error { return nil })
		if err != nil {
			fail(err)
		}
	}
	start := j.Head("bank")
	for i := 0; ; i++ {
		k, n := i%keys, i%3
		c := journaltest.Commit("bank", fmt.Sprint("k", k), versions[k], fmt.Sprint(start, "-", i), n)
		if i%97 == 0 {
			c.Command.Data = journaltest.Noise(700<<10, 0) // a batch in parts
		}
		versions[k] += journal.Version(n)
		err := j.Append(context.Background(), c, func(r journal.Receipt, err error) {
			if err != nil {
				fail(err)
			}
			fmt.Printf("%s %s %d %d\n", r.CommandID(), r.Key(), r.Version(), r.First())
		})
		if err != nil {
			fail(err)
		}
		if v := versions[k]; i%5 == 0 && v > 0 {
			j.PutSnapshot(context.Background(), "bank", c.Command.Key, journaltest.Snapshot("bank", c.Command.Key, v))
		}
	}
}

// A process that is killed at any moment loses nothing that it acknowledged.
func TestKill9(t *testing.T) {
	t.Parallel()
	rounds, seed := prove.Rounds(t, 4, 200), prove.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 9))
	dir := t.TempDir()
	told := map[string]string{} // id to what else its line says
	for round := range rounds {
		lines := 1 + rng.IntN(1500)
		t.Logf("round %d: killed after %d lines", round, lines)
		kill(t, victimDir, dir, lines, func(line string) {
			id, what, _ := strings.Cut(line, " ")
			told[id] = what
		})
		j := openJournal(t, dir)
		there := map[string]string{}
		err := j.Commits(context.Background(), "bank", 0, func(c *journal.Committed) error {
			there[string(c.Command.ID)] = fmt.Sprintf("%s %d %d", c.Command.Key, c.Version, c.First)
			return nil
		})
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		for id, what := range told {
			if there[id] != what {
				t.Errorf("round %d: %s was acknowledged as %q and is %q", round, id, what, there[id])
			}
		}
		for k := range killKeys {
			key := fmt.Sprint("k", k)
			s, ok, err := j.Snapshot(context.Background(), "bank", key)
			if err != nil || ok && string(s.State) != string(journaltest.Snapshot("bank", key, s.Version).State) {
				t.Errorf("round %d: the snapshot of %s at %d says %q, %v", round, key, s.Version, s.State, err)
			}
		}
		if err := j.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		report := mustVerify(t, dir)
		t.Logf("round %d: %d acknowledged, %d there, %d snapshots", round, len(told), len(there),
			report.Logs["bank"].Snapshots)
	}
}

func openStorage(t testing.TB, dir string, o Options) journal.Storage {
	t.Helper()
	return openDirectory(t, dir, o).storage()
}

func openDirectory(t testing.TB, dir string, o Options) *directory {
	t.Helper()
	d, err := open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// openJournal opens the journal in a directory.
func openJournal(t *testing.T, dir string) *commitlog.Journal {
	t.Helper()
	e := openStorage(t, dir, Options{})
	j, err := commitlog.Open(context.Background(), e, commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// mustVerify verifies the journal in a directory, which nobody has open.
func mustVerify(t *testing.T, dir string) verify.Report {
	t.Helper()
	e, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Run(context.Background(), e, verify.Options{})
	if err != nil || report.Found > 0 {
		t.Errorf("verify finds %v, %v", report.Problems, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return report
}

// kill starts a victim, a child that the variable tells of the directory, kills it
// after so many lines and hands on all that it said.
func kill(t *testing.T, variable, dir string, lines int, said func(line string)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	for n := 0; ; n++ {
		line, err := in.ReadString('\n')
		if err != nil {
			break // a line that was cut off was not told
		}
		said(strings.TrimSpace(line))
		if n == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("the victim ended by itself: %v, %s", err, strconv.Quote(stderr.String()))
	}
}
