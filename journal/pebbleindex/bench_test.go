package pebbleindex

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

const (
	benchEntries = 8192 // of an update
	benchGroups  = 20_000
)

// benchPairs are those of the n-th update: an entry of each of so many groups, in order.
func benchPairs(n int) []journal.Pair {
	pairs := make([]journal.Pair, benchEntries)
	for i := range pairs {
		at := n*benchEntries + i
		pairs[i] = pair(fmt.Sprintf("account-%08d/%08d", at%benchGroups*7919%benchGroups, at/benchGroups),
			fmt.Sprintf(`{"amount":%d,"currency":"EUR","reference":"%08x","booked":"2026-01-01T%02d:%02d:00Z",`+
				`"note":"abcdefghijklmnopqrstuvwxyz"}`,
				at*37%10_000, uint32(at)*2654435761, at/60%24, at%60))
	}
	slices.SortFunc(pairs, func(a, b journal.Pair) int { return bytes.Compare(a.Key, b.Key) })
	return pairs
}

func benchGroup(key []byte) int {
	if i := bytes.IndexByte(key, '/'); i >= 0 {
		return i + 1
	}
	return 0
}

func benchStore(b *testing.B, updates int) *Store {
	b.Helper()
	s := openTest(b, b.TempDir(), Options{Group: benchGroup, MemoryBytes: 128 << 20})
	for n := range updates {
		if err := s.Update(context.Background(), benchPairs(n)); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// BenchmarkUpdate measures what an entry costs, tables and merges included.
func BenchmarkUpdate(b *testing.B) {
	s := benchStore(b, 0)
	var raw int
	b.ResetTimer()
	for n := 0; n < b.N; n += benchEntries {
		b.StopTimer()
		pairs := benchPairs(n / benchEntries)
		for i := range pairs {
			raw += len(pairs[i].Key) + len(pairs[i].Value)
		}
		b.StartTimer()
		if err := s.Update(context.Background(), pairs); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(s.Stats().Written)/float64(raw), "written/raw")
}

// BenchmarkRead measures reads of a million entries, once they are merged.
func BenchmarkRead(b *testing.B) {
	ctx := context.Background()
	s := benchStore(b, 1_000_000/benchEntries)
	if err := s.Compact(ctx); err != nil {
		b.Fatal(err)
	}
	key := func(i int, version int) []byte {
		return fmt.Appendf(nil, "account-%08d/%08d", i*7919%benchGroups, version)
	}
	b.Run("has", func(b *testing.B) {
		for i := range b.N {
			if ok, err := s.Has(ctx, key(i, 3)); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("has-not", func(b *testing.B) {
		for i := range b.N {
			if ok, err := s.Has(ctx, fmt.Appendf(nil, "account-%08d-no/1", i)); ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("group-of-50", func(b *testing.B) {
		for i := range b.N {
			n, prefix := 0, key(i, 0)[:len("account-00000000/")]
			if err := s.Scan(ctx, prefix, prefix, func(_, _ []byte) error { n++; return nil }); n < 49 || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}
