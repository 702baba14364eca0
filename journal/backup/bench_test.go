package backup

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// What a backup and reading one cost beside the disk: 100,000 events of 200 bytes.
func BenchmarkBackup(b *testing.B) {
	const n = 100_000
	j, err := commitlog.Open(context.Background(), journaltest.NewMemory().Storage(), commitlog.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close(context.Background())
	done := make(chan error, n)
	for i := range n {
		c := journaltest.Commit("bank", fmt.Sprint("k", i%1000), journal.Version(i/1000), fmt.Sprint("c", i), 1)
		c.GeneratedID = true
		c.Events[0].Data = journaltest.Noise(200, uint64(i))
		if err := j.Append(context.Background(), c, func(_ journal.Receipt, err error) { done <- err }); err != nil {
			b.Fatal(err)
		}
	}
	for range n {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	var file bytes.Buffer
	if _, err := Write(context.Background(), &file, j, Options{}); err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(file.Len()))
		for b.Loop() {
			if _, err := Write(context.Background(), io.Discard, j, Options{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("check", func(b *testing.B) {
		b.SetBytes(int64(file.Len()))
		for b.Loop() {
			if _, err := Read(bytes.NewReader(file.Bytes()), Handler{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "events/s")
	})
}
