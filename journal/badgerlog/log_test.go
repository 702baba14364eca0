package badgerlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// smallFiles has several files of values.
var smallFiles = Options{ValueFileBytes: 4 << 20}

func openLog(t *testing.T, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// newestValues is the number of the file of values to which Badger writes.
func newestValues(t *testing.T, l *Log) uint32 {
	t.Helper()
	files, err := listValues(l.badger())
	if err != nil || len(files) == 0 {
		t.Fatalf("files of values: %v, %v", files, err)
	}
	return files[len(files)-1].id
}

// oldestValues is the number of the first file of values.
func oldestValues(t *testing.T, l *Log) uint32 {
	t.Helper()
	files, err := listValues(l.badger())
	if err != nil || len(files) == 0 {
		t.Fatalf("files of values: %v, %v", files, err)
	}
	return files[0].id
}

// blocksOf reads all blocks of a log.
func blocksOf(t *testing.T, l *Log, log journal.LogName) (all []journal.Block) {
	t.Helper()
	err := l.Blocks(t.Context(), log, 0, func(b journal.Block) error {
		b.Data = bytes.Clone(b.Data)
		all = append(all, b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameBlock(a, b journal.Block) bool {
	return a.Log == b.Log && a.First == b.First && a.Sequence == b.Sequence && bytes.Equal(a.Data, b.Data)
}

// testBlock is the n-th block of a log, from 1.
func testBlock(log journal.LogName, n uint64, size int) journal.Block {
	data := journaltest.Noise(size, n+uint64(len(log))<<40)
	return journal.Block{Log: log, First: journal.Position(n), Sequence: n, Data: data}
}

// fillBank appends blocks up to the n-th of the log "bank".
func fillBank(t *testing.T, l *Log, from, to uint64, size int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := l.Append(t.Context(), []journal.Block{testBlock("bank", n, size)}); err != nil {
			t.Fatal(err)
		}
	}
}

func trim(t *testing.T, l *Log, log journal.LogName, below uint64) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = l.Trim(t.Context(), log, below); err != nil {
			t.Fatal(err)
		}
	}
}

// holds fails the test unless the log "bank" has just these blocks.
func holds(t *testing.T, l *Log, from, to uint64, size int) {
	t.Helper()
	all := blocksOf(t, l, "bank")
	if len(all) != int(to-from)+1 {
		t.Fatalf("there are %d blocks, not %d to %d", len(all), from, to)
	}
	for i, b := range all {
		if !sameBlock(b, testBlock("bank", from+uint64(i), size)) {
			t.Fatalf("block %d is not where it should be: %d is", from+uint64(i), b.Sequence)
		}
	}
}

// write makes the files in dir, and nothing else.
func write(t *testing.T, all journaltest.Files, dir string) {
	t.Helper()
	if err := all.Write(dir); err != nil {
		t.Fatal(err)
	}
}

// image is what a process that dies now leaves.
func image(t *testing.T, dir string) journaltest.Files {
	t.Helper()
	list := func() string {
		names, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(dir, badgerDir, badger.ManifestFilename))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(names, content)
	}
	for {
		before := list()
		all, err := journaltest.ReadFiles(dir, "*/*", lineageFile, headsFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err == nil && list() == before { // or Badger made tables meanwhile, and removed others
			return all
		}
	}
}

// die is what the process that has l open leaves if it dies now. Then l is closed.
func die(t *testing.T, l *Log, dir string) journaltest.Files {
	t.Helper()
	died := image(t, dir)
	closeLog(t, l)
	return died
}
