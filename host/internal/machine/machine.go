// Package machine tells how much of what a process uses there is on this machine:
// what the defaults of a host's budget come from.
package machine

import (
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// Memory is how many bytes of memory this process may use: the least of what the
// machine has and of the limits of its control groups, of version 1 or 2. It is 0 where
// nobody can tell.
func Memory() int64 { return memory(os.DirFS("/")) }

// Mappings is how many mappings of memory a process may have; 0 where nobody can tell,
// or where there is no such limit.
func Mappings() int64 { return mappings(os.DirFS("/")) }

func mappings(root fs.FS) int64 {
	n, ok := number(root, "proc/sys/vm/max_map_count")
	if !ok {
		return 0
	}
	return n
}

func memory(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	if total := memTotal(root); total > 0 {
		least = total
	}
	for _, g := range groups(root) {
		// A group's limit holds for the groups below it. In a container the path may be as
		// the machine sees it, of which only the end is there.
		for at := g.path; ; at = path.Dir(at) {
			if n, ok := number(root, path.Join(g.mount, at, g.file)); ok && n > 0 {
				least = min(least, n)
			}
			if at == "/" || at == "." {
				break
			}
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// memTotal is the machine's memory in bytes; 0 if it is not told.
func memTotal(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil && kib > 0 && kib < math.MaxInt64>>10 {
				return kib << 10
			}
		}
	}
	return 0
}

// group is a control group that bounds memory, and the file that says so.
type group struct{ mount, path, file string }

// groups are the memory groups of this process.
func groups(root fs.FS) (all []group) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(parts) != 3 {
			continue
		}
		at := path.Join("/", parts[2])
		switch {
		case parts[1] == "":
			all = append(all, group{"sys/fs/cgroup", at, "memory.max"}, group{"sys/fs/cgroup/unified", at, "memory.max"})
		case strings.Contains(","+parts[1]+",", ",memory,"):
			all = append(all, group{"sys/fs/cgroup/memory", at, "memory.limit_in_bytes"})
		}
	}
	return all
}

// number reads a file with one number; false if there is none, as in "max".
func number(root fs.FS, name string) (int64, bool) {
	text, err := fs.ReadFile(root, strings.TrimPrefix(name, "/"))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n >= 0
}
