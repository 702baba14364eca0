package hostile

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// The resources of the host in the test of everything at once.
const (
	memoryLimit = 4 << 30
	diskSize    = 3 << 30
	openFiles   = 1024

	// maxWait is the maximum time of the neighbour's commands: the attackers use the same machine.
	maxWait = 2 * time.Second

	// maxResident is the maximum resident memory of the host: half of the limit for sandboxes, twice the
	// bytes in flight, as garbage takes as much again, and the journal.
	maxResident = memoryLimit/2 + 2*256<<20 + 512<<20
)

// usage is what a process holds.
type usage struct {
	goroutines, files, mappings int
	resident                    int64 // bytes, its share of memory files included
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d mappings, %d MiB", u.goroutines, u.files, u.mappings,
		u.resident>>20)
}

func usageOf(t testing.TB, c *hosttest.Child) (u usage) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", c.PID())
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	u.files = len(files)
	lines := func(name string, f func(string)) {
		file, err := os.Open(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for s := bufio.NewScanner(file); s.Scan(); {
			f(s.Text())
		}
	}
	lines("maps", func(string) { u.mappings++ })
	lines("status", func(line string) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			u.resident = kb << 10
		}
	})
	resp, err := http.Get("http://" + c.Address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "go_goroutines "); ok {
			n, _ := strconv.ParseFloat(rest, 64)
			u.goroutines = int(n)
		}
	}
	return u
}

// refusals counts the answers of a host by their kind. It is safe for concurrent use.
type refusals struct {
	mu    sync.Mutex // guards both
	kinds map[string]int
	odd   []string // answers without a known kind
}

func (r *refusals) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || resp.StatusCode < 300 {
		return resp, err
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	resp.Body.Close()
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	var p api.Problem
	_ = json.Unmarshal(body, &p)
	r.mu.Lock()
	defer r.mu.Unlock()
	kind := p.Kind
	if p.Resource != "" {
		kind += " of " + p.Resource
	}
	r.kinds[kind]++
	if (p.Kind == "" || p.Kind == service.KindInternal.String()) && len(r.odd) < 5 {
		r.odd = append(r.odd, fmt.Sprintf("%s %s: %s %.200s", req.Method, req.URL.Path, resp.Status, body))
	}
	return resp, nil
}

// Everything hostile at once, beside a well-behaved service, on a host with little memory, few descriptors
// and a small disk. The host survives, the neighbour loses nothing, each refusal says what it is, and
// afterwards everything is as before.
func TestEverythingHostile(t *testing.T) {
	raced.Skip(t, "it runs other processes only")
	length := prove.Time(t, 10*time.Second, time.Minute)
	limits := limited(t)
	c := startHost(t, hosttest.ChildOptions{
		Dir: limits.dir, Files: openFiles, Wrap: limits.wrap,
		Args: []string{"--journal-reserve", "256MiB"},
	})
	warm := measure(t.Context(), c, time.Second) // connections, caches
	alone := measure(t.Context(), c, 2*time.Second)
	http.DefaultClient.CloseIdleConnections()
	setUpEvents(t, c)
	before, budget := usageOf(t, c), taken(t, c)

	var all []string
	for _, a := range attacks() {
		all = append(all, a.name)
	}
	seen := &refusals{kinds: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var raid sync.WaitGroup
	var names []service.Name
	for _, g := range guests() {
		if g.Name != "slowinit" {
			err := tryDeploy(ctx, c, service.Name(g.Name), g.Make(g.Name))
			if g.Name == "straight" && err != nil {
				t.Logf("refused: %v", err) // compiling it takes more memory than this host has
			} else if err != nil {
				t.Errorf("deploying %s: %v", g.Name, err)
			}
			names = append(names, service.Name(g.Name))
		}
	}
	to := &http.Client{Transport: seen}
	raid.Go(func() {
		if err := launch(ctx, c, make(chan struct{}), all...); err != nil {
			t.Error(err)
		}
	})
	// Senders whose refusals are checked, beside those of the attacks.
	for _, name := range names {
		raid.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				what := [...]string{"commands/c", "queries/q"}[k%2]
				if name == "spin" {
					what = "commands/spin"
				}
				if err := post(ctx, to, c, name, "seen", what); err != nil {
					pause(ctx, 10*time.Millisecond)
				}
			}
		})
	}
	var peak usage
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			if rss := resident(c); rss > peak.resident {
				peak.resident = rss
			}
			pause(ctx, 100*time.Millisecond)
		}
	}()
	beside := measure(ctx, c, length)
	cancel()
	raid.Wait()
	<-watched
	http.DefaultClient.CloseIdleConnections()

	t.Logf("alone %v; beside %v", alone, beside)
	t.Logf("at most %d MiB resident", peak.resident>>20)
	if peak.resident > maxResident {
		t.Errorf("%d MiB were resident; at most %d should be", peak.resident>>20, int64(maxResident)>>20)
	}
	for _, kind := range slices.Sorted(maps.Keys(seen.kinds)) {
		t.Logf("%6d refused as %s", seen.kinds[kind], kind)
	}
	if beside.errors > 0 {
		t.Errorf("%d of the neighbour's commands failed: %v", beside.errors, beside.failed)
	}
	if p99 := beside.quantile(.99); p99 > maxWait {
		t.Errorf("the neighbour waited: %v", beside)
	}
	for _, odd := range seen.odd {
		t.Errorf("a refusal that says nothing: %s", odd)
	}
	select {
	case <-c.Exited:
		t.Fatalf("the host ended\n%s", c.Log)
	default:
	}

	cleared(t, c, append(names, "slowinit0", "slowinit1", "slowinit2"))
	after := usageOf(t, c)
	for end := time.Now().Add(patience); !asBefore(before, after) && time.Now().Before(end); after = usageOf(t, c) {
		pause(t.Context(), 200*time.Millisecond)
		http.DefaultClient.CloseIdleConnections()
	}
	t.Logf("before: %v; after: %v", before, after)
	if now := taken(t, c); !maps.Equal(now, budget) {
		t.Errorf("of the budget %v are taken; before it were %v", now, budget)
	}
	if !asBefore(before, after) {
		t.Errorf("the host holds what it did not before: %v, before %v", after, before)
	}
	if n, told := committed(t, c), pastEvents+len(warm.all)+len(alone.all)+len(beside.all)-beside.errors; n < told {
		t.Errorf("the neighbour was told of %d commands, and %d are in its log", told, n)
	}
	c.Stop(t)
	program, _ := hosttest.Program()
	if err := hosttest.VerifyJournal(program, limits.dir); err != nil {
		t.Error(err)
	}
}

// patience is how long a host may take to give back what it held.
const patience = 90 * time.Second

// asBefore allows for what a host keeps for reuse: stacks of idle threads, the journal's tables and caches.
func asBefore(before, after usage) bool {
	return after.goroutines <= before.goroutines+10 && after.files <= before.files+40 &&
		after.mappings <= before.mappings+200 && after.resident <= before.resident+256<<20
}

// committed is the number of the neighbour's commands in its log.
func committed(t testing.TB, c *hosttest.Child) int {
	t.Helper()
	resp, err := http.Get("http://" + c.Address + "/v1/services/" + string(neighbour))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var s struct{ Position service.Position } // each of its commands causes one event
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return int(s.Position)
}

// taken is what the host has taken from its budget, by resource. It ignores what is on disk, and readers of
// logs while they rest.
func taken(t testing.TB, c *hosttest.Child) map[string]int64 {
	t.Helper()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	all, err := cl.Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]int64{}
	for _, r := range all {
		if r.Resource == "sandboxes" || r.Resource == "sandbox_bytes" {
			held[r.Resource] = r.Used
		}
		if r.Limit > 0 && r.Used > r.Limit {
			t.Errorf("%d of %s are taken; the limit is %d", r.Used, r.Resource, r.Limit)
		}
	}
	return held
}

// command runs a program of the system.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// resident is the process's resident memory in bytes; 0 if it is gone.
func resident(c *hosttest.Child) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.PID()))
	var size, pages int64
	if _, e := fmt.Sscan(string(text), &size, &pages); err != nil || e != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// cleared deletes the given services, if they exist.
func cleared(t testing.TB, c *hosttest.Child, names []service.Name) {
	t.Helper()
	for _, name := range names {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete,
			"http://"+c.Address+"/v1/services/"+string(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotFound {
			t.Errorf("deleting %s: %s", name, resp.Status)
		}
	}
}

// limits is a small disk, and the command that starts a process with little memory.
type limits struct {
	dir  string
	wrap []string
}

// limited makes a small disk and a memory limit. This needs root. Without root the host has the whole
// machine, except under CI, where the test fails.
func limited(t testing.TB) limits {
	t.Helper()
	l, err := makeLimits(t)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Logf("without a small disk and a limit of memory: %v", err)
		return limits{dir: t.TempDir()}
	}
	return l
}

func makeLimits(t testing.TB) (l limits, err error) {
	if os.Getuid() != 0 {
		return l, errors.New("not root")
	}
	base := t.TempDir()
	image, dir := filepath.Join(base, "disk"), filepath.Join(base, "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return l, err
	}
	file, err := os.Create(image)
	if err == nil {
		err = errors.Join(file.Truncate(diskSize), file.Close())
	}
	if err == nil {
		err = command("mkfs.ext4", "-q", "-F", image)
	}
	if err == nil {
		err = command("mount", "-o", "loop", image, dir)
	}
	if err != nil {
		return l, err
	}
	t.Cleanup(func() {
		if err := command("umount", dir); err != nil {
			t.Error(err)
		}
	})
	group, err := memoryGroup(fmt.Sprint("bulkhead-hostile-", os.Getpid()))
	if err != nil {
		return l, err
	}
	t.Cleanup(func() { _ = os.Remove(group) }) // it is empty by then
	return limits{dir: filepath.Join(dir, "data"),
		wrap: []string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, group}}, nil
}

// memoryGroup makes a control group with a limit of memory, of either version.
func memoryGroup(name string) (string, error) {
	for _, g := range []struct{ dir, limit string }{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"}} {
		dir := filepath.Join(g.dir, name)
		if _, err := os.Stat(filepath.Join(g.dir, "cgroup.procs")); err != nil {
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, g.limit), []byte(strconv.Itoa(memoryLimit)), 0o644); err != nil {
			return "", errors.Join(err, os.Remove(dir))
		}
		return dir, nil
	}
	return "", errors.New("no control group of memory")
}
