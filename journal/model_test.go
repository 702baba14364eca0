package journal_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

var (
	modelTime = flag.Duration("model.time", 2*time.Second, "how long TestModel runs")
	modelSeed = flag.Uint64("model.seed", 0, "repeat TestModel from this seed; 0 takes a new one")
)

// handed is a commit that a worker of the model handed in.
type handed struct {
	id     string
	events int
	acked  bool // guarded by model.mu; so are all below
	done   int
	r      journal.Receipt
}

// model is what the journal should hold: the commits of each entity, in order.
type model struct {
	mu       sync.Mutex
	entities map[string][]*handed // "log/key"
}

func version(commits []*handed) (v journal.Version) {
	for _, c := range commits {
		v += journal.Version(c.events)
	}
	return v
}

// stateAt stands for an entity's state at a version: the id of the commit that brought
// it there. So a state of events that were lost is told from one of those that took
// their place.
func stateAt(commits []*handed, at journal.Version) string {
	var v journal.Version
	for _, c := range commits {
		if v += journal.Version(c.events); v >= at && c.events > 0 {
			return c.id
		}
	}
	return "nobody"
}

// snapshot holds an entity's snapshot, if there is one, to what the entity has been.
func snapshot(t *testing.T, j *journal.Journal, log journal.LogName, key string, commits []*handed) {
	t.Helper()
	s, ok, err := j.Snapshot(context.Background(), log, key)
	if err != nil {
		if j.Err() == nil && journal.KindOf(err) != journal.KindInternal {
			t.Errorf("%s/%s: %v", log, key, err)
		}
		return
	}
	if ok && (s.Version > version(commits) || string(s.State) != stateAt(commits, s.Version)) {
		t.Errorf("%s/%s is at %d, its snapshot of %s at %d", log, key, version(commits), s.State, s.Version)
	}
}

// Workers append, load, settle and keep snapshots at random, each its own entities, faster than the
// disk; then an operation fails, or none does, the machine loses power and some
// of the index, and what is there must be a beginning of what was handed in for
// each entity, with all that was acknowledged. Round after round on the same journal.
func TestModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-model.seed %d", seed)
	m := &model{entities: map[string][]*handed{}}
	disk := journaltest.NewMemory()
	rounds := 0
	for end := time.Now().Add(*modelTime); time.Now().Before(end) && !t.Failed(); rounds++ {
		rng := rand.New(rand.NewPCG(seed, uint64(rounds)))
		disk = disk.CrashClone(rng.IntN(4))
		j, err := journal.Open(context.Background(), disk, journal.Options{
			MaxGroupCommits: 1 + rng.IntN(20), MaxPendingCommits: 1 + rng.IntN(50),
			MaxBatchBytes: 200 + rng.IntN(2000), VersionCache: 1 + rng.IntN(8),
		})
		if err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		m.compare(t, j, rounds)
		if rng.IntN(3) > 0 {
			disk.FailAt(1 + rng.IntN(200))
		}
		var all sync.WaitGroup
		for w := range 4 {
			worker := rand.New(rand.NewPCG(rng.Uint64(), uint64(w)))
			all.Go(func() { m.work(t, j, worker, fmt.Sprint(rounds, "-", w), w) })
		}
		all.Wait()
		if err := j.Close(context.Background()); err != nil {
			t.Errorf("round %d: close: %v", rounds, err)
		}
	}
	disk = disk.CrashClone(0)
	j, err := journal.Open(context.Background(), disk, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.compare(t, j, rounds)
	if err := j.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	report, err := journal.Verify(context.Background(), disk.CrashClone(0), journal.VerifyOptions{})
	if err != nil || report.Found > 0 {
		t.Errorf("verify: %v, %v", report.Problems, err)
	}
	t.Logf("%d rounds, %d commits", rounds, report.Logs["log0"].Commits+report.Logs["log1"].Commits)
}

// work does random things to the entities of one worker.
func (m *model) work(t *testing.T, j *journal.Journal, rng *rand.Rand, name string, w int) {
	ctx := context.Background()
	for i := range 40 {
		log := journal.LogName(fmt.Sprint("log", rng.IntN(2)))
		key := fmt.Sprint("k", w, "-", rng.IntN(2))
		entity := string(log) + "/" + key
		m.mu.Lock()
		commits := m.entities[entity]
		m.mu.Unlock()
		at := version(commits)
		switch rng.IntN(10) {
		case 0:
			v, err := j.Load(ctx, log, key, at/2, func(*journal.Event) error { return nil })
			if err == nil && v != at && j.Err() == nil {
				t.Errorf("%s loads at %d, not %d", entity, v, at)
			}
		case 1:
			if _, err := journaltest.Append(j, journaltest.Commit(log, key, at+1, fmt.Sprint(name, "wrong", i), 1)); err == nil {
				t.Errorf("%s: accepted a wrong version", entity)
			}
		case 2:
			if len(commits) > 0 {
				again := commits[rng.IntN(len(commits))]
				if _, err := journaltest.Append(j, journaltest.Commit(log, key, at, again.id, 1)); err == nil {
					t.Errorf("%s: accepted id %s again", entity, again.id)
				}
			}
		case 3:
			if at > 0 {
				j.PutSnapshot(ctx, log, key, journal.Snapshot{Version: at, State: []byte(stateAt(commits, at))})
			}
		case 4:
			snapshot(t, j, log, key, commits)
		case 5:
			j.Settle(log, key, func(r journal.Receipt, err error) {
				if err == nil && (!r.Valid() || r.Version() != at) {
					t.Errorf("%s settles at %d, not %d", entity, r.Version(), at)
				}
			})
		default:
			c := &handed{id: fmt.Sprint(name, "-", i), events: rng.IntN(4)}
			err := j.Append(ctx, journaltest.Commit(log, key, at, c.id, c.events), func(r journal.Receipt, err error) {
				m.mu.Lock()
				defer m.mu.Unlock()
				c.done++
				c.acked, c.r = err == nil, r
			})
			if err != nil {
				if k := journal.KindOf(err); j.Err() == nil && k != journal.KindInternal {
					t.Errorf("%s: %v", entity, err)
				}
				return // the engine has begun to fail
			}
			m.mu.Lock()
			m.entities[entity] = append(commits, c)
			m.mu.Unlock()
		}
	}
}

// compare holds what is on disk to the model and takes it as the model's new state.
func (m *model) compare(t *testing.T, j *journal.Journal, round int) {
	t.Helper()
	there := map[string][]*handed{}
	for _, log := range []journal.LogName{"log0", "log1"} {
		next := journal.Position(1)
		err := j.Commits(context.Background(), log, 0, func(c *journal.Committed) error {
			if c.First != next {
				t.Errorf("round %d: %s goes from %d to %d", round, log, next, c.First)
			}
			next = c.First + journal.Position(len(c.Events))
			entity := string(log) + "/" + c.Command.Key
			there[entity] = append(there[entity], &handed{id: string(c.Command.ID), events: len(c.Events), acked: true, done: 1})
			if v := version(there[entity]); v != c.Version {
				t.Errorf("round %d: %s is at %d, not %d", round, entity, c.Version, v)
			}
			if i := len(there[entity]) - 1; i < len(m.entities[entity]) {
				if was := m.entities[entity][i]; was.r.Valid() && (was.r.First() != c.First || was.r.Version() != c.Version || was.r.Time() != c.Time) {
					t.Errorf("round %d: %s had receipt %+v and is %+v", round, c.Command.ID, was.r, c)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if head := j.Head(log); head != next-1 {
			t.Errorf("round %d: %s ends at %d, its head is %d", round, log, next-1, head)
		}
	}
	for entity, commits := range m.entities {
		for i, c := range commits {
			switch {
			case c.done != 1:
				t.Errorf("round %d: done of %s was called %d times", round, c.id, c.done)
			case i < len(there[entity]) && there[entity][i].id != c.id:
				t.Errorf("round %d: commit %d of %s is %s, not %s", round, i, entity, there[entity][i].id, c.id)
			case i >= len(there[entity]) && c.acked:
				t.Errorf("round %d: %s was acknowledged and is not there", round, c.id)
			}
		}
		if len(there[entity]) > len(commits) {
			t.Errorf("round %d: %s has more than was handed in", round, entity)
		}
	}
	for entity, commits := range there {
		log, key, _ := strings.Cut(entity, "/")
		snapshot(t, j, journal.LogName(log), key, commits)
	}
	m.entities = there
}
