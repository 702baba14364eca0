package host

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// tableChild runs the test in a child process: in the process of all tests, hosts have already enlarged the
// table.
const tableChild = "BULKHEAD_TEST_TABLE"

// An enlarged table has the requested size, and no descriptor is left.
func TestTableOfDescriptors(t *testing.T) {
	if os.Getenv(tableChild) != "" {
		tableOfDescriptors(t)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestTableOfDescriptors$", "-test.count=1")
	child.Env = append(os.Environ(), tableChild+"=1")
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func tableOfDescriptors(t *testing.T) {
	const want = 1000
	if got := tableSize(t); got >= want {
		t.Fatalf("a new process has a table of %d", got)
	}
	before := openFiles(t)
	widenTable(want)
	if got := tableSize(t); got < want {
		t.Errorf("the table has room for %d, not for %d", got, want)
	}
	if got := openFiles(t); got != before {
		t.Errorf("%d descriptors are open, and %d were", got, before)
	}
}

func tableSize(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "FDSize:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the system does not tell")
	return 0
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
