package journaltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// ModelDisk is what [Model] works on: bytes that survive, and operations that fail.
type ModelDisk interface {
	// Open opens a storage on what is left after a crash, or a close. The one before has
	// been closed by its journal.
	Open(t testing.TB, rng *rand.Rand) journal.Storage
	// FailAt makes the n-th operation from now fail, and all after it, until the next
	// Open; 0 lets all succeed.
	FailAt(n int)
}

// MemoryDisk is one in memory, whose crashes lose updates of the index.
func MemoryDisk() ModelDisk { return &memoryDisk{NewMemory()} }

type memoryDisk struct{ *Memory }

func (d *memoryDisk) Open(_ testing.TB, rng *rand.Rand) journal.Storage {
	d.Memory = d.CrashClone(rng.IntN(4))
	return d.Storage()
}

// handed is a commit that a worker of the model handed in.
type handed struct {
	id     string
	events int
	acked  bool // guarded by model.mu; so are all below
	done   int
	r      journal.Receipt
	onDisk bool             // seen there by compare
	first  journal.Position // if so
}

// model is what the journal should hold: the commits of each entity, in order.
type model struct {
	mu       sync.Mutex
	entities map[string][]*handed // "log/key"
	kept     uint64               // events that retentions have kept apart
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
func snapshot(t *testing.T, j *commitlog.Journal, log journal.LogName, key string, commits []*handed) {
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

// Model has workers append, load, settle and keep snapshots at random, each its own entities,
// faster than the disk, and old events deleted; then an operation fails, or none does,
// and what is there must be a beginning of what was handed in for each entity, with all
// that was acknowledged. Round after round on the same journal, for a while.
func Model(t *testing.T, disk ModelDisk, seed uint64, long time.Duration) {
	m := &model{entities: map[string][]*handed{}}
	rounds, retained := 0, uint64(0)
	open := func(rng *rand.Rand) *commitlog.Journal {
		began, round := time.Now(), rounds
		j, err := commitlog.Open(context.Background(), disk.Open(t, rng), commitlog.Options{
			MaxGroupCommits: 1 + rng.IntN(20), MaxPendingCommits: 1 + rng.IntN(50),
			MaxBatchBytes: 200 + rng.IntN(2000), VersionCache: 1 + rng.IntN(8),
			// Each round is on another day, so that a retention may delete what was before.
			Clock: func() journal.UnixNano {
				return journal.UnixNano(time.Duration(round)*25*time.Hour + time.Since(began))
			},
		})
		if err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		for _, log := range j.DamagedLogs() {
			t.Errorf("round %d: %v", rounds, j.Damage(log))
		}
		m.compare(t, j, rounds)
		return j
	}
	for end := time.Now().Add(long); time.Now().Before(end) && !t.Failed(); rounds++ {
		rng := rand.New(rand.NewPCG(seed, uint64(rounds)))
		j := open(rng)
		faulty := rng.IntN(3) > 0
		if faulty {
			disk.FailAt(1 + rng.IntN([]int{200, 2000}[rng.IntN(2)])) // a retention takes hundreds
		}
		if rng.IntN(3) == 0 {
			retained += m.retain(t, j, rng, faulty)
		}
		var all sync.WaitGroup
		for w := range 4 {
			worker := rand.New(rand.NewPCG(rng.Uint64(), uint64(w)))
			all.Go(func() { m.work(t, j, worker, fmt.Sprint(rounds, "-", w), w) })
		}
		all.Wait()
		disk.FailAt(0)
		if err := j.Close(context.Background()); err != nil {
			t.Errorf("round %d: close: %v", rounds, err)
		}
	}
	rng := rand.New(rand.NewPCG(seed, uint64(rounds)))
	if err := open(rng).Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	e := disk.Open(t, rand.New(rand.NewPCG(0, 0)))
	report, err := verify.Run(context.Background(), e, verify.Options{})
	if err != nil || report.Found > 0 {
		t.Errorf("verify: %v, %v", report.Problems, err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	commits := 0
	for _, of := range m.entities {
		commits += len(of)
	}
	t.Logf("%d rounds, %d commits, %d events deleted, %d of them kept apart", rounds, commits, retained, m.kept)
}

// retain deletes the first events of a log, up to somewhere.
func (m *model) retain(t *testing.T, j *commitlog.Journal, rng *rand.Rand, faulty bool) uint64 {
	ctx := context.Background()
	log := journal.LogName(fmt.Sprint("log", rng.IntN(2)))
	head := j.Head(log)
	if head == 0 {
		return 0
	}
	without, schema := rng.IntN(3), uint32(rng.IntN(3)) // of the keys: these cannot have a snapshot now
	done, err := j.Retain(ctx, log, journal.Retention{
		Before: j.First(log) + journal.Position(rng.Uint64N(uint64(head-j.First(log)+2))), Schema: schema,
		MaxKept: int64(rng.IntN(5)-1) * 4000,
		Cover: func(_ context.Context, key string, _ journal.Version) error {
			if strings.HasSuffix(key, fmt.Sprint(without)) {
				return errors.New("its state cannot be encoded")
			}
			commits := m.entities[string(log)+"/"+key]
			j.PutSnapshot(ctx, log, key, journal.Snapshot{Version: version(commits), Schema: schema,
				State: []byte(stateAt(commits, version(commits)))})
			return nil
		},
	})
	if err != nil && !faulty && journal.KindOf(err) != journal.KindInvalid { // which says that all has to stay
		t.Errorf("retain: %v", err)
	}
	if err == nil {
		m.kept += done.KeptEvents
	}
	return done.Events
}

// work does random things to the entities of one worker.
func (m *model) work(t *testing.T, j *commitlog.Journal, rng *rand.Rand, name string, w int) {
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
			if _, err := Append(j, Commit(log, key, at+1, fmt.Sprint(name, "wrong", i), 1)); err == nil {
				t.Errorf("%s: accepted a wrong version", entity)
			}
		case 2:
			// Ids of other rounds may be used again: they are of another day.
			if again := commits[max(0, len(commits)-1):]; len(again) > 0 && strings.HasPrefix(again[0].id, name+"-") {
				again := again[0]
				if _, err := Append(j, Commit(log, key, at, again.id, 1)); err == nil {
					t.Errorf("%s: accepted id %s again", entity, again.id)
				}
			}
		case 3:
			if at > 0 {
				j.PutSnapshot(ctx, log, key, journal.Snapshot{Version: at, Schema: uint32(rng.IntN(3)),
					State: []byte(stateAt(commits, at))})
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
			err := j.Append(ctx, Mixed(Commit(log, key, at, c.id, c.events)), func(r journal.Receipt, err error) {
				m.mu.Lock()
				defer m.mu.Unlock()
				c.done++
				c.acked, c.r = err == nil, r
			})
			if err != nil {
				if k := journal.KindOf(err); j.Err() == nil && k != journal.KindInternal {
					t.Errorf("%s: %v", entity, err)
				}
				return // the storage has begun to fail
			}
			m.mu.Lock()
			m.entities[entity] = append(commits, c)
			m.mu.Unlock()
		}
	}
}

// compare holds what is on disk to the model and takes it as the model's new state.
// What a retention has deleted the model keeps.
func (m *model) compare(t *testing.T, j *commitlog.Journal, round int) {
	t.Helper()
	there := map[string][]*handed{}
	begins := map[string]journal.Version{} // of the first commit that is there
	for _, log := range []journal.LogName{"log0", "log1"} {
		next := j.First(log)
		err := j.Commits(context.Background(), log, 0, func(c *journal.Committed) error {
			if end := c.First + journal.Position(len(c.Events)); end <= j.First(log) {
				next = end // in the batch that holds the first event that is kept
			} else if c.First > next || c.First < next && next != j.First(log) {
				t.Errorf("round %d: %s goes from %d to %d", round, log, next, c.First)
			}
			next = c.First + journal.Position(len(c.Events))
			entity := string(log) + "/" + c.Command.Key
			if there[entity] == nil {
				begins[entity] = c.Version - journal.Version(len(c.Events))
			}
			there[entity] = append(there[entity], &handed{
				id: string(c.Command.ID), events: len(c.Events), acked: true, done: 1, onDisk: true, first: c.First,
			})
			if v := begins[entity] + version(there[entity]); v != c.Version {
				t.Errorf("round %d: %s is at %d, not %d", round, entity, c.Version, v)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		CheckTypes(t, j, log)
		if head := j.Head(log); head != next-1 && there[string(log)] != nil {
			t.Errorf("round %d: %s ends at %d, its head is %d", round, log, next-1, head)
		}
	}
	for entity, commits := range m.entities {
		log, _, _ := strings.Cut(entity, "/")
		first := j.First(journal.LogName(log))
		gone := 0
		for gone < len(commits) && (len(there[entity]) == 0 || commits[gone].id != there[entity][0].id) &&
			commits[gone].onDisk && commits[gone].first+journal.Position(commits[gone].events) <= first {
			gone++
		}
		if len(there[entity]) > 0 && version(commits[:gone]) != begins[entity] {
			t.Errorf("round %d: what is left of %s begins at version %d, not %d", round, entity, begins[entity],
				version(commits[:gone]))
		}
		m.compareEntity(t, entity, commits[gone:], there[entity], round)
		there[entity] = append(commits[:gone:gone], there[entity]...)
	}
	for entity, commits := range there {
		log, key, _ := strings.Cut(entity, "/")
		snapshot(t, j, journal.LogName(log), key, commits)
		events(t, j, journal.LogName(log), key, commits)
	}
	m.entities = there
}

// events holds what can be read of an entity to what was handed in: with a snapshot or without one, there is all that
// makes its state.
func events(t *testing.T, j *commitlog.Journal, log journal.LogName, key string, commits []*handed) {
	t.Helper()
	ctx := context.Background()
	first, err := j.EntityFirst(ctx, log, key)
	if err != nil {
		t.Errorf("%s/%s: %v", log, key, err)
		return
	}
	s, ok, err := j.Snapshot(ctx, log, key)
	if err != nil || first > 1 && (!ok || s.Version < first-1) {
		t.Errorf("%s/%s begins at version %d, its snapshot is of %d, %v", log, key, first, s.Version, err)
	}
	type event struct {
		id       string
		position journal.Position
	}
	var want []event
	for _, c := range commits {
		for i := range c.events {
			want = append(want, event{c.id, c.first + journal.Position(i)})
		}
	}
	at := first - 1
	last, err := j.Load(ctx, log, key, at, func(e *journal.Event) error {
		if at++; e.Version != at || int(at) > len(want) || want[at-1] != (event{string(e.CommandID), e.Position}) {
			t.Errorf("%s/%s has at version %d %s at position %d, of %v", log, key, e.Version, e.CommandID, e.Position,
				want)
		}
		return nil
	})
	if err != nil || last != at || int(at) != len(want) {
		t.Errorf("%s/%s is read to version %d, %d, and not to %d, %v", log, key, at, last, len(want), err)
	}
}

// compareEntity holds the commits of an entity that are there to those handed in.
func (m *model) compareEntity(t *testing.T, entity string, commits, there []*handed, round int) {
	t.Helper()
	for i, c := range commits {
		switch {
		case c.done != 1:
			t.Errorf("round %d: done of %s was called %d times", round, c.id, c.done)
		case i < len(there) && there[i].id != c.id:
			t.Errorf("round %d: commit %d of %s is %s, not %s", round, i, entity, there[i].id, c.id)
		case i < len(there) && c.r.Valid() && (c.r.First() != there[i].first || c.r.Events() != there[i].events):
			t.Errorf("round %d: %s had receipt %+v and is at %d", round, c.id, c.r, there[i].first)
		case i >= len(there) && c.acked:
			t.Errorf("round %d: %s was acknowledged and is not there", round, c.id)
		}
	}
	if len(there) > len(commits) {
		t.Errorf("round %d: %s has more than was handed in", round, entity)
	}
}
