package machine

import (
	"runtime"
	"testing"
	"testing/fstest"
)

func files(all map[string]string) fstest.MapFS {
	fs := fstest.MapFS{}
	for name, text := range all {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

const (
	gib     = 1 << 30
	meminfo = "MemTotal:       8388608 kB\nMemFree:         100 kB\n"
)

func TestMemory(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing is told":   {nil, 0},
		"machine":           {map[string]string{"proc/meminfo": meminfo}, 8 * gib},
		"machine, nonsense": {map[string]string{"proc/meminfo": "MemTotal: -5 kB\nMemTotal: much\n"}, 0},
		"version 2": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "2147483648\n"}, 2 * gib},
		"version 2, none": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "max\n"}, 8 * gib},
		"version 2, the group above": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1073741824\n"}, gib},
		"version 2, in a container": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1073741824"}, gib},
		"version 1": {map[string]string{"proc/meminfo": meminfo,
			"proc/self/cgroup": "12:cpu,cpuacct:/\n5:memory:/docker/x\n0::/\n",
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "1073741824\n"}, gib},
		"version 1, none": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8 * gib},
		"version 1, in a container": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n"}, gib},
		"more than the machine has": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "99999999999999"}, 8 * gib},
		"nonsense": {map[string]string{"proc/meminfo": meminfo,
			"proc/self/cgroup": "\nx\n0::\n0:::::\n5:memory:../../..\n"}, 8 * gib},
	} {
		if got := memory(files(c.files)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestMappings(t *testing.T) {
	for text, want := range map[string]int64{"65530\n": 65530, "": 0, "x": 0, "-1": 0} {
		if got := mappings(files(map[string]string{"proc/sys/vm/max_map_count": text})); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := mappings(files(nil)); got != 0 {
		t.Errorf("where there is no such file: %d", got)
	}
}

func TestThisMachine(t *testing.T) {
	if n := Memory(); n < 0 || runtime.GOOS == "linux" && n < 64<<20 {
		t.Errorf("this process may use %d bytes", n)
	}
	if n := Mappings(); n < 0 || runtime.GOOS == "linux" && n < 1000 {
		t.Errorf("this process may have %d mappings", n)
	}
}
