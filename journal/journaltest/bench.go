package journaltest

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// Bench measures a journal on storages that open makes, each empty. raw, if not nil, makes what keeps blocks
// under the storage, by itself, in the way in which somebody who knows it would use it without us: it
// writes and syncs the blocks of each call together.
func Bench(b *testing.B, open func(b *testing.B) journal.Storage, raw func(b *testing.B) func([]journal.Block) error) {
	for _, o := range []commitlog.Options{{}, {Codec: journal.CodecNone}} {
		name := "bounds"
		if o.Codec == journal.CodecNone {
			name = "bounds-no-codec"
		}
		b.Run(name+"/256-appenders", func(b *testing.B) { benchBounds(b, open, raw, o, 256, 1, sized) })
		b.Run(name+"/256-appenders-8-events", func(b *testing.B) { benchBounds(b, open, raw, o, 256, 8, sized) })
		b.Run(name+"/256-appenders-noise", func(b *testing.B) { benchBounds(b, open, raw, o, 256, 1, noisy) })
		b.Run(name+"/pipelined", func(b *testing.B) { benchBounds(b, open, raw, o, 0, 1, sized) })
	}
	b.Run("append/256-appenders/sync-each", func(b *testing.B) {
		benchAppend(b, open(b), commitlog.Options{MaxGroupCommits: 1}, 256)
	})
	b.Run("append/1-appender", func(b *testing.B) { benchAppend(b, open(b), commitlog.Options{}, 1) })
	b.Run("hydrate-20-events", func(b *testing.B) { benchHydrate(b, open(b)) })
	b.Run("scan", func(b *testing.B) { benchScan(b, open(b)) })
}

func benchOpen(b *testing.B, e journal.Storage, o commitlog.Options) *commitlog.Journal {
	b.Helper()
	j, err := commitlog.Open(context.Background(), e, o)
	must(b, err)
	b.Cleanup(func() { must(b, j.Close(context.Background())) })
	return j
}

// sized makes a commit with events of 200 bytes of data each, by a host's own id. It is what a service
// of a bank might write: the names of the members are always the same, half of the rest is words, and
// half is numbers and identifiers that nobody can guess.
func sized(key string, at journal.Version, id string, events int) *journal.Commit {
	words := [...]string{"invoice", "rent", "for", "march", "salary", "the", "refund", "of", "order", "gift", "card",
		"payment", "to", "from", "monthly", "fee"}
	c := noisy(key, at, id, events)
	for i := range c.Events {
		noise := c.Events[i].Data
		data := fmt.Appendf(make([]byte, 0, 200), `{"account":%q,"amount":%d,"currency":"EUR","reference":"%x","booked":"2026-01-01T%02d:%02d:%02dZ","note":"`,
			key, binary.LittleEndian.Uint32(noise)%1_000_000, noise[4:20], noise[20]%24, noise[21]%60, noise[22]%60)
		for w := 23; len(data) < 190; w++ {
			data = append(append(data, words[int(noise[w])%len(words)]...), ' ')
		}
		c.Events[i].Data = append(data[:min(len(data), 198)], `"}`...)
	}
	return c
}

// noisy makes a commit likewise, with events that no codec makes smaller.
func noisy(key string, at journal.Version, id string, events int) *journal.Commit {
	c := Commit("bank", key, at, id, events)
	hash := fnv.New64a()
	_, _ = io.WriteString(hash, id)
	noise := Noise(48+200*events, hash.Sum64())
	copy(c.Command.Fingerprint[:], noise)
	copy(c.Command.Seed[:], noise[16:])
	c.Command.Module = journal.Digest([]byte("the same module in all of commits"))
	for i := range c.Events {
		c.Events[i].Data = noise[48+200*i:][:200]
	}
	c.GeneratedID = true
	return c
}

// makeCommit is what sized is.
type makeCommit = func(key string, at journal.Version, id string, events int) *journal.Commit

// appenders makes n commits and returns what appends them. Each appender waits for its
// receipt before it goes on, as a client does; with none, nobody waits, as shards do,
// which run ahead of the disk. Keys are of one round.
func appenders(b *testing.B, j *commitlog.Journal, round, n, appenders, events int, commit makeCommit) (run func()) {
	b.Helper()
	made := make([][]*journal.Commit, max(appenders, 1))
	keys := len(made)
	if appenders == 0 {
		keys = 1000
	}
	for i := range n {
		id, key := fmt.Sprint(round, "-", i), fmt.Sprint(round, "-key", i%keys)
		made[i%len(made)] = append(made[i%len(made)], commit(key, journal.Version(i/keys*events), id, events))
	}
	return func() {
		var all sync.WaitGroup
		for _, commits := range made {
			all.Go(func() { appendAll(b, j, commits, appenders > 0) })
		}
		all.Wait()
	}
}

// appendAll appends commits, and waits for each or for all.
func appendAll(b *testing.B, j *commitlog.Journal, commits []*journal.Commit, each bool) {
	done := make(chan struct{}, 1)
	var all sync.WaitGroup
	told := func(_ journal.Receipt, err error) {
		if err != nil {
			b.Error(err)
		}
		if each {
			done <- struct{}{}
		}
		all.Done()
	}
	for _, c := range commits {
		all.Add(1)
		if err := j.Append(context.Background(), c, told); err != nil {
			b.Error(err)
			all.Done()
			break
		}
		if each {
			<-done
		}
	}
	all.Wait()
}

// recorder remembers what was appended.
type recorder struct{ groups [][]journal.Block }

func (r *recorder) wrap(s journal.Storage) journal.Storage {
	s.Log = recordedLog{s.Log, r}
	return s
}

type recordedLog struct {
	journal.LogStore
	to *recorder
}

func (l recordedLog) Append(ctx context.Context, blocks []journal.Block) error {
	l.to.groups = append(l.to.groups, blocks)
	return l.LogStore.Append(ctx, blocks)
}

// benchBounds holds the journal against bounds, by turns in one run: what is under the storage, as others
// would use it, writing the batches as they are without a codec; the storage given the same bytes in the same
// groups as the journal gave it; and a file that these bytes are appended to, with as many syncs. All of the
// journal's work counts, that on the index too, which the bounds do not have; making the commits
// does not.
func benchBounds(b *testing.B, open func(b *testing.B) journal.Storage,
	raw func(b *testing.B) func([]journal.Block) error,
	o commitlog.Options, clients, events int, commit makeCommit) {
	const rounds = 8
	ctx := context.Background()
	var recorded recorder
	j := benchOpen(b, recorded.wrap(open(b)), o)
	bare := open(b)
	b.Cleanup(func() { must(b, bare.Close()) })
	file, err := os.Create(filepath.Join(b.TempDir(), "bound"))
	must(b, err)
	b.Cleanup(func() { must(b, file.Close()) })
	var ours, below, storage, disk, busy, storageBusy time.Duration
	appendRaw := func([]journal.Block) error { return nil }
	if raw != nil {
		appendRaw = raw(b)
	}
	write := func(groups [][]journal.Block, to func([]journal.Block) error) (took, busy time.Duration) {
		runtime.GC() // of what the others left
		before, start := CPUTime(), time.Now()
		for _, blocks := range groups {
			must(b, to(blocks))
		}
		return time.Since(start), CPUTime() - before
	}
	packed, whole := 0, 0
	b.ReportAllocs()
	b.ResetTimer()
	for round := range rounds {
		b.StopTimer()
		run := appenders(b, j, round, max(1, b.N/rounds), clients, events, commit)
		runtime.GC()
		before, start := CPUTime(), time.Now()
		b.StartTimer()
		run()
		for j.Stats().Pending > 0 { // what the index costs belongs to it
			time.Sleep(100 * time.Microsecond)
		}
		b.StopTimer()
		ours += time.Since(start)
		busy += CPUTime() - before
		groups, plain := recorded.groups, make([][]journal.Block, 0, len(recorded.groups))
		recorded.groups = nil
		for _, blocks := range groups {
			blocks = slices.Clone(blocks)
			for i := range blocks {
				packed += len(blocks[i].Data)
				blocks[i].Data, err = format.Unpacked(blocks[i].Data)
				must(b, err)
				whole += len(blocks[i].Data)
			}
			plain = append(plain, blocks)
		}
		for turn := range 3 { // each is first now and then
			switch (turn + round) % 3 {
			case 0:
				took, cpu := write(groups, func(blocks []journal.Block) error { return bare.Log.Append(ctx, blocks) })
				storage += took
				storageBusy += cpu
			case 1:
				took, _ := write(groups, func(blocks []journal.Block) error {
					for _, block := range blocks {
						if _, err := file.Write(block.Data); err != nil {
							return err
						}
					}
					return file.Sync()
				})
				disk += took
			case 2:
				took, _ := write(plain, appendRaw)
				below += took
			}
		}
	}
	s := j.Stats()
	b.ReportMetric(float64(s.Events)/ours.Seconds(), "events/s")
	b.ReportMetric(float64(s.Commits)/float64(max(s.Syncs, 1)), "commits/sync")
	if raw != nil {
		b.ReportMetric(below.Seconds()/ours.Seconds(), "of-raw")
	}
	b.ReportMetric(storage.Seconds()/ours.Seconds(), "of-storage")
	b.ReportMetric(disk.Seconds()/ours.Seconds(), "of-file")
	b.ReportMetric(float64(whole)/float64(max(packed, 1)), "packed-times")
	b.ReportMetric(float64(busy.Nanoseconds())/float64(s.Commits), "cpu-ns/commit")
	b.ReportMetric(float64(storageBusy.Nanoseconds())/float64(s.Commits), "storage-cpu-ns/commit")
}

func benchAppend(b *testing.B, e journal.Storage, o commitlog.Options, clients int) {
	j := benchOpen(b, e, o)
	run := appenders(b, j, 0, b.N, clients, 1, sized)
	b.ReportAllocs()
	b.ResetTimer()
	run()
	b.StopTimer()
	report(b, j)
}

func report(b *testing.B, j *commitlog.Journal) {
	s := j.Stats()
	b.ReportMetric(float64(s.Commits)/b.Elapsed().Seconds(), "commits/s")
	b.ReportMetric(float64(s.Commits)/float64(max(s.Syncs, 1)), "commits/sync")
}

const benchEntities, benchVersions = 1000, 20

func benchFilled(b *testing.B, e journal.Storage) *commitlog.Journal {
	b.Helper()
	j := benchOpen(b, e, commitlog.Options{})
	var waiting sync.WaitGroup
	for v := range benchVersions {
		for k := range benchEntities {
			waiting.Add(1)
			err := j.Append(context.Background(), sized(fmt.Sprint("key", k), journal.Version(v), fmt.Sprint(k, "-", v),
				1),
				func(_ journal.Receipt, err error) { waiting.Done() })
			must(b, err)
		}
	}
	waiting.Wait()
	for j.Stats().Pending > 0 { // until the index is complete
		runtime.Gosched()
	}
	return j
}

func benchHydrate(b *testing.B, e journal.Storage) {
	j := benchFilled(b, e)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		events := 0
		_, err := j.Load(context.Background(), "bank", fmt.Sprint("key", i*7%benchEntities), 0,
			func(*journal.Event) error { events++; return nil })
		must(b, err)
		if events != benchVersions {
			b.Fatalf("%d events", events)
		}
	}
}

func benchScan(b *testing.B, e journal.Storage) {
	j := benchFilled(b, e)
	head := j.Head("bank")
	b.ReportAllocs()
	b.ResetTimer()
	events := 0
	for range b.N {
		must(b, j.Read(context.Background(), "bank", 0, 0, func(*journal.Event) error { events++; return nil }))
	}
	b.StopTimer()
	if events != b.N*int(head) {
		b.Fatalf("%d events of %d", events, b.N*int(head))
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

// Fill appends events, one a commit, to the log "bank": versions of as many entities
// as there are twenties of them, in no order. It waits for the index, and returns how
// many a second it was for the last tenth.
func Fill(ctx context.Context, j *commitlog.Journal, events int) (perSecond float64, err error) {
	const prime = 2_147_483_647 // larger than the entities, so that each is met once a round
	entities := max(1, events/benchVersions)
	var failed atomic.Pointer[error]
	var start time.Time
	last := events - max(1, events/10)
	for i := range events {
		if i == last {
			start = time.Now()
		}
		c := sized(fmt.Sprintf("account-%08d", i%entities*prime%entities), journal.Version(i/entities),
			fmt.Sprintf("command-%d", i), 1)
		err := j.Append(ctx, c, func(_ journal.Receipt, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
		if err != nil {
			return 0, err
		}
	}
	for j.Stats().Pending > 0 && j.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	perSecond = float64(events-last) / time.Since(start).Seconds()
	if p := failed.Load(); p != nil {
		return 0, *p
	}
	return perSecond, j.Err()
}

// FilledKey is the i-th of the entities that Fill made of so many events.
func FilledKey(i, events int) string {
	return fmt.Sprintf("account-%08d", i%max(1, events/benchVersions))
}
