package readmetest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// documents are executed in this order, in one shell.
var documents = []string{"README.md", "guest-sdk/README.md", "host/cmd/bulkhead/README.md", ".github/CONTRIBUTING.md"}

// block is one fenced block of a document.
type block struct {
	at     string // file and line
	info   string // the text after the opening fence
	text   string
	output []string // the lines of the text block that follows
}

// address is the address in the documents. The test uses a free port instead.
const address = "127.0.0.1:8080"

// blocks finds the shell blocks and the outputs that belong to them.
func blocks(t *testing.T, name, text string) []block {
	t.Helper()
	var all []block
	var open *block
	for i, line := range strings.Split(text, "\n") {
		fence, info, _ := strings.Cut(line, "```")
		switch {
		case !strings.Contains(line, "```"):
			if open != nil {
				open.text += line + "\n"
			}
		case open == nil:
			if strings.TrimSpace(fence) != "" {
				t.Fatalf("%s:%d: a fence does not begin its line", name, i+1)
			}
			open = &block{at: fmt.Sprintf("%s:%d", name, i+1), info: strings.TrimSpace(info)}
		default:
			switch lang, _, _ := strings.Cut(open.info, " "); {
			case lang == "sh":
				all = append(all, *open)
			case lang == "text" && len(all) > 0:
				all[len(all)-1].output = append(all[len(all)-1].output,
					strings.Split(strings.TrimSpace(open.text), "\n")...)
			case lang == "":
				t.Errorf("%s: a fence without a language is neither executed nor compared", open.at)
			}
			open = nil
		}
	}
	if open != nil {
		t.Fatalf("%s: a fence is not closed", open.at)
	}
	return all
}

func TestEveryCommandInTheDocumentsWorks(t *testing.T) {
	prove.SkipShort(t, "it runs the program")
	raced.Skip(t, "it runs other processes only")
	tree := copyTree(t)
	var all []block
	for _, name := range documents {
		text, err := os.ReadFile(filepath.Join(tree, name))
		if err != nil {
			t.Fatal(err)
		}
		found := blocks(t, name, string(text))
		if len(found) == 0 {
			t.Fatalf("%s has no shell block", name)
		}
		all = append(all, found...)
	}
	free := hosttest.Address(t)
	logs := t.TempDir()
	for i := range all {
		all[i].text = strings.ReplaceAll(all[i].text, address, free)
		for j := range all[i].output {
			all[i].output[j] = strings.ReplaceAll(all[i].output[j], address, free)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", script(all, logs))
	shell.Dir = tree
	shell.Env = cleanEnv(t, free)
	// A process group of its own, so that everything that the documents start in the background ends
	// with the test.
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	shell.WaitDelay = 10 * time.Second
	out, err := shell.CombinedOutput()
	_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL)
	if err != nil {
		t.Errorf("a command failed: %v (context: %v)\n%s", err, context.Cause(ctx), tail(out))
	}
	for i, b := range all {
		got, err := os.ReadFile(logName(logs, i))
		if err != nil {
			t.Errorf("%s was not reached", b.at)
			continue
		}
		if line, ok := shows(got, b.output); !ok {
			t.Errorf("%s promises the output\n  %s\nbut it is not there, or not in this order:\n%s", b.at, line,
				tail(got))
		}
	}
}

func logName(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("block-%02d", i)) }

// script joins the blocks to one script for a single shell.
func script(all []block, logs string) string {
	var s strings.Builder
	s.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n")
	for i, b := range all {
		log := logName(logs, i)
		fmt.Fprintf(&s, "echo '== %s'\n", b.at)
		switch mark := strings.TrimSpace(strings.TrimPrefix(b.info, "sh")); mark {
		case "offline": // the block must not need the network
			b.text = "online=$GOPROXY; export GOPROXY=off\n" + b.text + "export GOPROXY=$online\n"
			fallthrough
		case "":
			// Without tee: it would put the block into a subshell, which loses cd and variables.
			fmt.Fprintf(&s,
				"exec 3>&1 4>&2 >%[1]s 2>&1\ntrap 'cat %[1]s >&3; kill $(jobs -p) 2>/dev/null || true' "+
					"EXIT\n%[2]sexec >&3 2>&4\ncat %[1]s\n", log, b.text)
		case "check":
			fmt.Fprintf(&s,
				"( export GOFLAGS=\"${GOFLAGS:-} -exec=true -vet=off\"\n%s) >%s 2>&1 || { cat %[2]s; exit 1; }\n",
				b.text, log)
		case "background":
			// It is ready when the last line in the document has been printed.
			fmt.Fprintf(&s, "( exec >%[1]s 2>&1\n%[2]s) &\n", log, b.text)
			if n := len(b.output); n > 0 {
				fmt.Fprintf(&s,
					"until grep -qE %s %s; do kill -0 $! || { cat %[2]s; exit 1; }; sleep 0.1; done\ncat %[2]s\n",
					quote(pattern(b.output[n-1])), log)
			}
		default:
			fmt.Fprintf(&s, "echo '%s: no such mark: %s'; exit 1\n", b.at, mark)
		}
	}
	return s.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// pattern returns a line of output as a regular expression.
func pattern(line string) string {
	parts := strings.Split(strings.TrimSpace(line), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return strings.Join(parts, ".*")
}

// shows reports whether the wanted lines appear in the output, in order, with any lines between them. If not, it
// returns the first line that is missing.
func shows(got []byte, want []string) (string, bool) {
	lines := strings.Split(string(got), "\n")
	for _, w := range want {
		if strings.TrimSpace(w) == "" || strings.TrimSpace(w) == "…" {
			continue
		}
		r := regexp.MustCompile("^" + pattern(w) + "$")
		i := slices.IndexFunc(lines, func(l string) bool { return r.MatchString(strings.TrimSpace(l)) })
		if i < 0 {
			return w, false
		}
		lines = lines[i+1:]
	}
	return "", true
}

func tail(b []byte) string {
	const maxShown = 6000
	if len(b) > maxShown {
		return "...\n" + string(b[len(b)-maxShown:])
	}
	return string(b)
}

// cleanEnv returns the environment of a user who has just installed Go: nothing of Bulkhead, and an empty home.
// Go's caches are kept, as they only save time.
func cleanEnv(t *testing.T, listen string) []string {
	t.Helper()
	goEnv, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS").Output()
	if err != nil {
		t.Fatal(err)
	}
	v := strings.Split(string(goEnv), "\n")
	return []string{
		"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir(),
		"GOCACHE=" + v[0], "GOMODCACHE=" + v[1], "GOPROXY=" + v[2],
		"GOFLAGS=" + strings.TrimSpace(v[3]+" -trimpath"), // otherwise the cache would not work for another directory
		"ADDRESS=" + listen, "BULKHEAD_LISTEN=" + listen, "BULKHEAD_HOST=http://" + listen,
		"BULKHEAD_LIMIT_COMPILE_TIME=10m", // beside other tests
	}
}

// notCloned are directories at the root that are not part of the tree.
var notCloned = []string{".git", "bin", "build", ".cache"}

// copyTree copies the tree, like a fresh clone.
func copyTree(t *testing.T) string {
	t.Helper()
	from, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "bulkhead")
	err = filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, name)
		switch {
		case d.IsDir() && slices.Contains(notCloned, rel):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), text, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// Links to files of the tree work.
func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	code := regexp.MustCompile("(?ms)^```.*?^```$")
	tree := os.DirFS("../../..")
	found := 0
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(notCloned, name):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".md":
			return nil
		}
		found++
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		text = code.ReplaceAllFunc(text, func(b []byte) []byte {
			return bytes.Repeat([]byte("\n"), bytes.Count(b, []byte("\n")))
		})
		for _, m := range link.FindAllSubmatchIndex(text, -1) {
			to := path.Join(path.Dir(name), string(text[m[2]:m[3]]))
			if _, err := fs.Stat(tree, to); err != nil {
				t.Errorf("%s:%d: %s is not there", name, 1+bytes.Count(text[:m[0]], []byte("\n")), to)
			}
		}
		return nil
	})
	if err != nil || found < len(documents) {
		t.Errorf("%d documents (%v)", found, err)
	}
}
