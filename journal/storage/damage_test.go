package storage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

var damageFirst = flag.Int("damage.first", 0, "the first case of TestDamagedFiles, to repeat one")

// damageDir names the directory of the journals for a test binary that is started
// to open damaged ones: damage may end a process.
const damageDir = "STORAGE_DAMAGE_DIR"

var damageLogs = []journal.LogName{"bank", "orders", "tally"}

const damageKeys = 7

// Files of a journal are cut short, removed, or have bits flipped, at random, one at
// a time; the journal was closed in peace or its process was killed. No event is ever
// served that was not written. What is missing is said: by the storage that does not
// open, by the log that is damaged, or by the read. The process survives, but for
// compactions that meet a damaged block; after two such deaths the table is found.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	cases, seed := prove.Rounds(t, 16, 1000), prove.Seed(t)
	dir := t.TempDir()
	makeTemplates(t, dir)
	sum := map[string]int{}
	for next, end := *damageFirst, *damageFirst+cases; next < end; {
		deaths := 0
		for begun, died := next, true; died; {
			var at int
			at, died = runDamage(t, dir, seed, next, end, deaths, sum)
			if at > begun || !died {
				begun, deaths = at, 0
			}
			next = at
			if died {
				sum["deaths"]++
				deaths++
			}
			if deaths > deepAfter {
				t.Fatalf("-prove.seed %d, case %d: the process died %d times", seed, at, deaths)
			}
		}
	}
	t.Logf("%d cases: %v", cases, sum)
}

// makeTemplates makes a journal that was closed in peace and one that was killed.
func makeTemplates(t *testing.T, dir string) {
	made := filepath.Join(dir, "closed")
	for round := range 5 {
		e, err := Open(made, Options{})
		if err != nil {
			t.Fatal(err)
		}
		j, err := commitlog.Open(context.Background(), e, commitlog.Options{MaxBatchBytes: 4 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			if _, err := journaltest.Append(j, damageCommit(damageLogs[i%3], round*100+i/3)); err != nil {
				t.Fatal(err)
			}
		}
		if round == 4 { // as a kill leaves it: the files as they are
			killed, err := readJournal(made)
			if err == nil {
				err = killed.Write(filepath.Join(dir, "killed"))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// damageCommit is the n-th commit of a log, with one event, whose content tells all.
func damageCommit(log journal.LogName, n int) *journal.Commit {
	c := journaltest.Commit(log, fmt.Sprint("k", n%damageKeys), journal.Version(n/damageKeys), fmt.Sprint(log, "-", n),
		1)
	c.Events[0].Data = damageEvent(log, journal.Position(n+1))
	return c
}

func damageEvent(log journal.LogName, p journal.Position) []byte {
	return append(fmt.Appendf(nil, "%s %d;", log, p), journaltest.Noise(150, uint64(p))...)
}

const damageEvents = 500 // of each log

// readJournal reads the files of a journal.
func readJournal(dir string) (journaltest.Files, error) {
	return journaltest.ReadFiles(dir, "*/*", "index/*/*", "lineage", "heads")
}

// runDamage has a child run cases until it is through or dead, and returns where to
// go on. After deaths it goes on with the journal that it died of.
func runDamage(t *testing.T, dir string, seed uint64, from, to, deaths int, sum map[string]int) (next int, died bool) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), damageDir+"="+dir, fmt.Sprintf("DAMAGE=%d %d %d %d", seed, from, to, deaths))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	what := ""
	next = from
	for in := bufio.NewScanner(out); in.Scan(); {
		word, rest, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "case":
			what = rest
		case "done":
			next++
		case "came":
			sum[rest]++
			if testing.Verbose() {
				t.Logf("%s: %s", what, rest)
			}
		case "bad":
			t.Errorf("-prove.seed %d, case %s: %s", seed, what, rest)
		}
	}
	if err := cmd.Wait(); err != nil {
		died = true
		if text := stderr.String(); !strings.Contains(text, "compact") {
			t.Errorf("-prove.seed %d, case %s: the process ended: %v\n%s", seed, what, err, text[:min(len(text), 3000)])
		}
	}
	return next, died
}

// beDamaged is the child.
func beDamaged(dir string) {
	var seed uint64
	var from, to, deaths int
	if _, err := fmt.Sscan(os.Getenv("DAMAGE"), &seed, &from, &to, &deaths); err != nil {
		panic(err)
	}
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	templates := map[string]journaltest.Files{}
	for _, name := range []string{"closed", "killed"} {
		var err error
		templates[name], err = readJournal(filepath.Join(dir, name))
		must(err)
	}
	work := filepath.Join(dir, "work")
	for n := from; n < to; n++ {
		rng := rand.New(rand.NewPCG(seed, uint64(n)))
		name := []string{"closed", "killed"}[rng.IntN(2)]
		if n > from || deaths == 0 {
			must(templates[name].Write(work))
			what, err := doDamage(work, templates[name], rng)
			must(err)
			fmt.Printf("case %d: %s: %s\n", n, name, what)
		} else {
			fmt.Printf("case %d again\n", n)
		}
		for _, opening := range []string{"first", "second"} { // the second finds what the first has put aside
			fmt.Println("came", opening+" "+lookAtDamaged(work))
		}
		fmt.Println("done")
	}
	os.Exit(0)
}

// doDamage damages one file.
func doDamage(dir string, all journaltest.Files, rng *rand.Rand) (what string, err error) {
	names := slices.Sorted(maps.Keys(all))
	if rng.IntN(2) == 0 { // tables are what most bytes are in
		names = slices.DeleteFunc(names, func(name string) bool { return filepath.Ext(name) != ".sst" })
	}
	name := names[rng.IntN(len(names))]
	path, used := filepath.Join(dir, name), len(all[name].Content) // damage where something is
	what = fmt.Sprintf("%s of %d bytes ", name, all[name].Size)
	switch k := rng.IntN(10); {
	case k == 0:
		return what + "removed", os.Remove(path)
	case k < 4 || used == 0:
		at := rng.IntN(max(used, 1))
		return what + fmt.Sprintf("cut at %d", at), os.Truncate(path, int64(at))
	}
	at, bit := rng.IntN(used), rng.IntN(8)
	if rng.IntN(4) == 0 {
		at = max(0, used-1-rng.IntN(200)) // footers
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = f.WriteAt([]byte{all[name].Content[at] ^ 1<<bit}, int64(at))
	return what + fmt.Sprintf("bit %d of %d flipped", bit, at), errors.Join(err, f.Close())
}

// lookAtDamaged opens a journal, reads all that it can and holds it to what was
// written. It returns how the damage showed.
func lookAtDamaged(dir string) string {
	ctx := context.Background()
	bad := func(format string, args ...any) { fmt.Printf("bad "+format+"\n", args...) }
	e, err := Open(dir, Options{})
	if err != nil {
		if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(err.Error(), dir) {
			bad("the storage does not open and does not say what is damaged: %v", err)
		}
		return "refused"
	}
	j, err := commitlog.Open(ctx, e, commitlog.Options{})
	if err != nil {
		if journal.KindOf(err) != journal.KindCorrupt {
			bad("the journal does not open: %v", err)
		}
		if err := e.Close(); err != nil {
			bad("close: %v", err)
		}
		return "journal refused"
	}
	ways := map[string]bool{}
	for _, log := range damageLogs {
		ways[lookAtLog(ctx, j, log, bad)] = true
	}
	if err := j.Close(ctx); err != nil && journal.KindOf(err) != journal.KindCorrupt {
		bad("close: %v", err)
	}
	delete(ways, "whole")
	for _, way := range []string{"damaged log", "damaged read"} {
		if ways[way] {
			return way
		}
	}
	return "harmless"
}

func lookAtLog(ctx context.Context, j *commitlog.Journal, log journal.LogName, bad func(string, ...any)) string {
	damage := j.Damage(log)
	way := "whole"
	if damage != nil {
		way = "damaged log"
		if _, err := journaltest.Append(j, damageCommit(log, damageEvents)); journal.KindOf(
			err) != journal.KindCorrupt {
			bad("%s is damaged and takes a commit: %v", log, err)
		}
	}
	served := journal.Position(0)
	err := j.Read(ctx, log, 0, 0, func(ev *journal.Event) error {
		if ev.Position > damageEvents || !bytes.Equal(ev.Data, damageEvent(log, ev.Position)) {
			bad("%s serves at %d what was not written: %.40q", log, ev.Position, ev.Data)
		}
		served++
		return nil
	})
	switch {
	case err != nil && journal.KindOf(err) != journal.KindCorrupt:
		bad("%s: %v", log, err)
	case err != nil && damage == nil:
		way = "damaged read"
	case err == nil && served != damageEvents && damage == nil:
		bad("%s has %d events, of %d, and says nothing", log, served, damageEvents)
	}
	for k := range damageKeys {
		key := fmt.Sprint("k", k)
		want := journal.Version((damageEvents - k + damageKeys - 1) / damageKeys)
		v, err := j.Load(ctx, log, key, 0, func(ev *journal.Event) error {
			if p := journal.Position(int(ev.Version-1)*damageKeys + k + 1); !bytes.Equal(ev.Data, damageEvent(log, p)) {
				bad("%s/%s serves at version %d what was not written: %.40q", log, key, ev.Version, ev.Data)
			}
			return nil
		})
		switch {
		case err != nil && journal.KindOf(err) != journal.KindCorrupt:
			bad("%s/%s: %v", log, key, err)
		case err != nil && damage == nil:
			way = "damaged read"
		case err == nil && v != want && damage == nil:
			bad("%s/%s is at %d, of %d, and says nothing", log, key, v, want)
		}
	}
	return way
}
