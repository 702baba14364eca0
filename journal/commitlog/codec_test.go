package commitlog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// A journal goes on with another codec, and what was written with the one before stays readable, provable
// and good for an index.
func TestCodecs(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m := journaltest.NewMemory()
	at := journal.Version(0)
	for _, codec := range []journal.Codec{journal.CodecNone, journal.CodecS2, journal.CodecNone, ""} {
		j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{Codec: codec})
		must(err)
		for range 3 {
			const events = 20
			_, err := journaltest.Append(j, journaltest.Commit("bank", "alice", at, fmt.Sprint("c", at), events))
			must(err)
			at += events
		}
		must(j.Close(ctx))
		m = m.CrashClone(0)
	}
	packed, plain := 0, 0
	must(m.Log().Blocks(ctx, "bank", 0, func(b journal.Block) error {
		whole, err := format.Unpacked(b.Data)
		if len(whole) > len(b.Data) {
			packed++
		} else {
			plain++
		}
		return err
	}))
	if packed != 6 || plain != 6 {
		t.Errorf("%d batches are packed, %d are not", packed, plain)
	}
	must(commitlog.Rebuild(ctx, m.Storage(), nil))
	j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{})
	must(err)
	defer func() { must(j.Close(ctx)) }()
	next := journal.Position(1)
	must(j.Read(ctx, "bank", 0, 0, func(e *journal.Event) error {
		if want := fmt.Sprintf(`{"id":"c%d","n":%d}`, (next-1)/20*20, (next-1)%20); e.Position != next || string(e.Data) != want {
			t.Errorf("position %d has %s, not %s", e.Position, e.Data, want)
		}
		next++
		return nil
	}))
	if v, err := j.Load(ctx, "bank", "alice", 0, func(*journal.Event) error { return nil }); v != at || err != nil ||
		next != journal.Position(at)+1 {
		t.Errorf("version %d, %v, read up to %d, not %d", v, err, next-1, at)
	}

	if _, err := commitlog.Open(ctx, journaltest.NewMemory().Storage(),
		commitlog.Options{Codec: "zip"}); journal.KindOf(
		err) != journal.KindInvalid {
		t.Errorf("an unknown codec: %v", err)
	}
}

// deletions notes the maximum number of keys that are deleted from the index at once.
type deletions struct {
	journal.IndexStore
	max *int
}

func (d deletions) Delete(ctx context.Context, keys [][]byte) error {
	*d.max = max(*d.max, len(keys))
	return d.IndexStore.Delete(ctx, keys)
}

// A retention goes in steps of the same size, however small batches are packed.
func TestRetentionStepsOfPackedBatches(t *testing.T) {
	const commits, events = 100, 1000
	most := map[journal.Codec]int{}
	for _, codec := range []journal.Codec{journal.CodecNone, journal.CodecS2} {
		n := 0
		s := journaltest.NewMemory().Storage()
		s.Index = deletions{s.Index, &n}
		j, err := commitlog.Open(t.Context(), s, commitlog.Options{Codec: codec})
		if err != nil {
			t.Fatal(err)
		}
		for i := range commits {
			if _, err := journaltest.Append(j, journaltest.Commit("bank", "alice", journal.Version(i*events),
				fmt.Sprint("c", i), events)); err != nil {
				t.Fatal(err)
			}
		}
		r, err := j.Retain(t.Context(), "bank", journal.Retention{Before: commits*events + 1, Force: true})
		if err != nil || r.Events != commits*events {
			t.Fatalf("%+v, %v", r, err)
		}
		most[codec] = n
		if err := j.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if plain, packed := most[journal.CodecNone], most[journal.CodecS2]; plain == 0 || packed > plain+events ||
		plain >= commits*events/2 {
		t.Errorf("at most %d keys at once of batches that are not packed, %d of those that are", plain, packed)
	}
}
