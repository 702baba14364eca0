package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// After it the table is as large as was asked for, and no descriptor is left.
func TestTableOfDescriptors(t *testing.T) {
	tableSize := func() int {
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
	open := func() int {
		names, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	want, before := 2*tableSize(), open()
	if int64(want) > descriptorLimit() {
		t.Fatalf("the process may have %d descriptors; the test needs %d", descriptorLimit(), want)
	}
	widenTable(int64(want))
	if got := tableSize(); got < want {
		t.Errorf("the table has room for %d, not for %d", got, want)
	}
	if got := open(); got != before {
		t.Errorf("%d descriptors are open, and %d were", got, before)
	}
}
