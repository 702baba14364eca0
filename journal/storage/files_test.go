package storage

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// openFiles counts this process's descriptors of files below a directory.
func openFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	links, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("there is no /proc to count descriptors in")
	}
	for _, l := range links {
		if to, err := os.Readlink("/proc/self/fd/" + l.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

// A storage never has more files open than FilesOf says, also while it writes, flushes
// and merges; and it says that it is full while it still has some left.
func TestFilesThatAStorageHasOpen(t *testing.T) {
	dir := t.TempDir()
	const most = 70
	e, err := Open(dir, Options{IndexCacheBytes: 8 << 20, ValueFileBytes: 4 << 20, ReserveBytes: -1, MaxFiles: most})
	if err != nil {
		t.Fatal(err)
	}
	j, err := commitlog.Open(t.Context(), e, commitlog.Options{Codec: journal.CodecNone})
	if err != nil {
		t.Fatal(err)
	}
	var full error
	i := 0
	for ; i < 2000 && full == nil; i++ {
		c := journaltest.Commit("bank", fmt.Sprint("k", i), 0, fmt.Sprint("c", i), 1)
		c.Events[0].Data = make([]byte, 1<<20)
		if _, full = journaltest.Append(j, c); full != nil {
			break
		}
		if i%10 == 0 {
			open := openFiles(t, dir)
			said, err := FilesOf(dir)
			if err != nil || open > said || open > most {
				t.Fatalf("after %d commits %d files are open, at most %d were said, and %d allowed: %v", i, open, said,
					most, err)
			}
		}
	}
	if journal.KindOf(full) != journal.KindFull || !strings.Contains(full.Error(), "raise the limit of open files") {
		t.Fatalf("after %d commits: %v", i, full)
	}
	if err := j.Err(); err != nil {
		t.Errorf("the journal failed: %v", err)
	}
	if open := openFiles(t, dir); open > most-fileReserve/2 {
		t.Errorf("%d files are open of %d, and %d should be left", open, most, fileReserve)
	}
	if err := j.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
