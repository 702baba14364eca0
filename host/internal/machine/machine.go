// Package machine reads how much memory and how many mappings the operating system gives this
// process. The defaults of a host's budget are derived from them.
package machine

import (
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// Memory returns how many bytes of memory this process may use: the minimum of the machine's memory
// and the limits of its control groups (version 1 or 2). It returns 0 where this cannot be found
// out.
func Memory() int64 { return memory(os.DirFS("/")) }

// Mappings returns how many memory mappings a process may have. It returns 0 where this cannot be
// found out, or where there is no such limit.
func Mappings() int64 { return mappings(os.DirFS("/")) }

func mappings(root fs.FS) int64 {
	n, ok := number(root, "proc/sys/vm/max_map_count")
	if !ok {
		return 0
	}
	return n
}

func memory(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	if total := memTotal(root); total > 0 {
		limit = total
	}
	for _, g := range groups(root) {
		// The limit of a group applies to all groups inside it. In a container the path may be the
		// one that the machine sees, while only its last elements exist here.
		for dir := g.path; ; dir = path.Dir(dir) {
			if n, ok := number(root, path.Join(g.mount, dir, g.file)); ok && n > 0 {
				limit = min(limit, n)
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// memTotal returns the machine's memory in bytes; 0 if it is unknown.
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

// group is a control group that bounds memory; file is the name of the file with its limit.
type group struct{ mount, path, file string }

// groups returns the memory control groups of this process.
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
		dir := path.Join("/", parts[2])
		switch {
		case parts[1] == "":
			all = append(all, group{"sys/fs/cgroup", dir, "memory.max"},
				group{"sys/fs/cgroup/unified", dir, "memory.max"})
		case strings.Contains(","+parts[1]+",", ",memory,"):
			all = append(all, group{"sys/fs/cgroup/memory", dir, "memory.limit_in_bytes"})
		}
	}
	return all
}

// number reads a file that holds one number. It returns false if the file is missing or holds
// something else, such as "max".
func number(root fs.FS, name string) (int64, bool) {
	text, err := fs.ReadFile(root, strings.TrimPrefix(name, "/"))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n >= 0
}
