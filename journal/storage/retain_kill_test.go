package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// retainDir names the journal of a test binary that is started to be killed while it
// deletes what it wrote before.
const retainDir = "STORAGE_RETAIN_DIR"

// beRetainer appends and has retentions, and says on its output what was
// acknowledged: of an entity its version, of the log where it begins.
func beRetainer(dir string) {
	ctx := context.Background()
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	e, err := Open(dir, Options{IndexCacheBytes: 8 << 20, ValueFileBytes: 4 << 20})
	must(err)
	j, err := commitlog.Open(ctx, e, commitlog.Options{MaxBatchBytes: 2000, AnswerWindow: time.Nanosecond})
	must(err)
	versions := map[string]journal.Version{}
	for k := range killKeys {
		key := fmt.Sprint("k", k)
		_, versions[key], err = journaltest.Hydrate(j, "bank", key)
		must(err)
	}
	start := j.Head("bank")
	done := make(chan error, 1)
	retain := func() {
		without := fmt.Sprint(j.Head("bank") % 10) // what ends in it has its events kept apart
		_, err := j.Retain(ctx, "bank", journal.Retention{Before: j.Head("bank") - min(40, j.Head("bank")), Schema: 3,
			Cover: func(_ context.Context, key string, v journal.Version) error {
				if strings.HasSuffix(key, without) {
					return errors.New("its state cannot be encoded")
				}
				j.PutSnapshot(ctx, "bank", key,
					journal.Snapshot{Version: v, Schema: 3, State: fmt.Appendf(nil, "%s at %d", key, v)})
				return nil
			}})
		if err == nil {
			fmt.Printf("log %d\n", j.First("bank"))
		}
		done <- err
	}
	running := false
	for i := 0; ; i++ {
		key := fmt.Sprint("k", i%killKeys)
		c := journaltest.Commit("bank", key, versions[key], fmt.Sprint(start, "-", i), i%3)
		if i%97 == 0 {
			c.Command.Data = journaltest.Noise(700<<10, 0) // a batch in parts
		}
		r, err := journaltest.Append(j, c)
		must(err)
		versions[key] = r.Version()
		fmt.Printf("%s %d\n", key, r.Version())
		if !running && i > 60 {
			running = true
			go retain()
		}
		select {
		case err := <-done:
			must(err)
			running = false
		default:
		}
	}
}

// A process that is killed while it deletes loses nothing that an entity needs.
func TestKill9InRetention(t *testing.T) {
	t.Parallel()
	rounds, seed := prove.Rounds(t, 4, 200), prove.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 11))
	dir := t.TempDir()
	told := map[string]uint64{}
	retentions := 0
	for round := range rounds {
		lines := 100 + rng.IntN(400)
		t.Logf("round %d: killed after %d lines", round, lines)
		kill(t, retainDir, dir, lines, func(line string) {
			var what string
			var v uint64
			if _, err := fmt.Sscan(line, &what, &v); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			told[what] = v
			if what == "log" {
				retentions++
			}
		})
		j := openJournal(t, dir)
		for what, v := range told {
			if what == "log" {
				if first := j.First("bank"); uint64(first) < v {
					t.Errorf("round %d: the log begins at %d, and at %d before", round, first, v)
				}
				continue
			}
			// The victim has one commit in flight at a time, of two events at most.
			if _, at, err := journaltest.Hydrate(j, "bank", what); err != nil || uint64(at) < v || uint64(at) > v+2 {
				t.Errorf("round %d: %s hydrates to %d, %d was acknowledged, %v", round, what, at, v, err)
			}
		}
		next := j.First("bank")
		err := j.Read(t.Context(), "bank", 0, 0, func(e *journal.Event) error {
			if e.Position != next {
				return fmt.Errorf("position %d, want %d", e.Position, next)
			}
			next++
			return nil
		})
		if err != nil || next != j.Head("bank")+1 {
			t.Errorf("round %d: read up to %d of %d, %v", round, next-1, j.Head("bank"), err)
		}
		if err := j.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		mustVerify(t, dir)
	}
	t.Logf("%d retentions were told of in %d rounds", retentions, rounds)
}
