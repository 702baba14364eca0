package storage

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

var growthEvents = flag.String("events", "100000,1000000", "sizes of the journals of BenchmarkGrowth")

// Environment of the process that fills a journal and is killed.
const (
	growthDir  = "STORAGE_GROWTH"
	growthSize = "STORAGE_GROWTH_EVENTS"
)

// grown is what the filling process tells before it waits for its end.
type grown struct {
	PerSecond     float64
	Amplification float64
}

// grow fills a journal and waits to be killed. It is a process of its own.
func grow(dir string) {
	ctx := context.Background()
	events, err := strconv.Atoi(os.Getenv(growthSize))
	if err != nil {
		panic(err)
	}
	e, err := Open(dir, Options{})
	if err != nil {
		panic(err)
	}
	j, err := commitlog.Open(ctx, e, commitlog.Options{})
	if err != nil {
		panic(err)
	}
	rate, err := journaltest.Fill(ctx, j, events)
	if err != nil {
		panic(err)
	}
	s := j.Stats()
	if err := json.NewEncoder(os.Stdout).Encode(grown{rate, s.WriteAmplification()}); err != nil {
		panic(err)
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until killed
}

// BenchmarkGrowth fills journals of several sizes, each in a process that is killed, and
// holds against each other: events a second of the last tenth, opening after the kill,
// and, when what the kill left to be merged is merged, a full scan, hydration of an entity of
// 20 events that was never touched since, and the size on disk once all is compacted.
// make bench-growth does it at 10 million.
func BenchmarkGrowth(b *testing.B) {
	for size := range strings.SplitSeq(*growthEvents, ",") {
		events, err := strconv.Atoi(size)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(size, func(b *testing.B) {
			for range b.N {
				benchGrowth(b, events)
			}
		})
	}
}

func benchGrowth(b *testing.B, events int) {
	ctx := context.Background()
	dir := b.TempDir()
	g := growAndKill(b, dir, events)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(g.PerSecond, "appended/s")
	b.ReportMetric(g.Amplification, "written/payload")

	start := time.Now()
	d := openDirectory(b, dir, Options{})
	j, err := commitlog.Open(ctx, d.storage(), commitlog.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds()*1000, "open-ms")

	start = time.Now()
	settle(b, d.log)
	if err := d.index.Settle(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds()*1000, "settle-ms")
	start = time.Now()
	const touched = 1000
	for i := range touched {
		n := 0
		_, err := j.Load(ctx, "bank", journaltest.FilledKey(i*7919, events), 0,
			func(*journal.Event) error { n++; return nil })
		if err != nil || n != 20 {
			b.Fatalf("%d events, %v", n, err)
		}
	}
	b.ReportMetric(time.Since(start).Seconds()*1e6/touched, "hydrate-µs")

	start = time.Now()
	n, payload := 0, 0
	err = j.Read(ctx, "bank", 0, 0, func(e *journal.Event) error { n++; payload += len(e.Data); return nil })
	if err != nil || n != events {
		b.Fatalf("%d events, %v", n, err)
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "scanned/s")

	if err := d.compact(ctx); err != nil {
		b.Fatal(err)
	}
	if err := j.Close(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(sizeOnDisk(b, dir))/float64(payload), "disk/payload")
}

// settle waits until the log's database merges nothing any more: for a second nothing is due, and
// no level has changed.
func settle(b *testing.B, log *badgerlog.Log) {
	const quiet, most = time.Second, 5 * time.Minute
	begin := time.Now()
	for since, was := begin, ""; time.Since(since) < quiet; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > most {
			b.Fatalf("after %v there is still something to merge: %s", most, was)
		}
		levels := log.Levels()
		now := fmt.Sprint(levels)
		due := false
		for _, l := range levels {
			due = due || l.Score >= 1 || l.Adjusted >= 1
		}
		if due || now != was {
			since, was = time.Now(), now
		}
	}
}

func growAndKill(b *testing.B, dir string, events int) (g grown) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), growthDir+"="+dir, fmt.Sprint(growthSize, "=", events))
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &g)
	}
	_ = child.Process.Kill()
	_ = child.Wait() // it was killed
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// sizeOnDisk is what the files of values and the tables in a directory take on disk.
func sizeOnDisk(t testing.TB, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err == nil && (ext == ".sst" || ext == ".table" || ext == ".vlog") {
			info, err := d.Info()
			if err != nil {
				return err
			}
			n += onDisk(info)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// onDisk is how many bytes of the disk a file takes, where the system tells: files are made larger than what is in
// them.
func onDisk(info fs.FileInfo) int64 {
	if blocks := reflect.Indirect(reflect.ValueOf(info.Sys())).FieldByName("Blocks"); blocks.IsValid() &&
		blocks.CanInt() {
		return blocks.Int() * 512
	}
	return info.Size()
}
