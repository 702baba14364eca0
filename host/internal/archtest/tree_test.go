package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

const module = "github.com/bulkhead-wasm/bulkhead"

// source is one Go file of the tree, whatever its build constraints.
type source struct {
	name    string // relative to the root, with slashes
	dir     string // its package's directory; "" is the root
	test    bool
	lines   int
	imports []string
	fset    *token.FileSet
	ast     *ast.File
}

func root(t *testing.T) string {
	t.Helper()
	r, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// walk calls f with every file that belongs to the tree.
func walk(t *testing.T, f func(name string, d fs.DirEntry)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root(t)), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == ".git" || slices.Contains(derived, name) {
				return fs.SkipDir
			}
			return nil
		}
		f(name, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	walk(t, func(name string, _ fs.DirEntry) {
		if !strings.HasSuffix(name, ".go") || slices.Contains(strings.Split(name, "/"), "testdata") {
			return
		}
		text, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		s := source{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
			lines: bytes.Count(text, []byte("\n")), fset: token.NewFileSet()}
		if s.ast, err = parser.ParseFile(s.fset, name, text, parser.SkipObjectResolution); err != nil {
			t.Errorf("%s does not parse: %v", name, err)
			return
		}
		for _, i := range s.ast.Imports {
			p, _ := strconv.Unquote(i.Path.Value)
			s.imports = append(s.imports, p)
		}
		all = append(all, s)
	})
	if len(all) == 0 {
		t.Fatal("found no Go files; is the root wrong?")
	}
	return all
}

// height is the index of a room's layer, counted from the lowest; -1 if there is no such layer.
func (r *room) height() int { return slices.Index(layers, r.layer) }

// matches reports whether a path is that of a room; "*" stands for any name.
func matches(pattern, dir string) bool {
	ok, _ := path.Match(pattern, dir)
	return ok
}

// roomOf finds the rule for a directory; an exact path takes precedence over a pattern.
func roomOf(dir string) *room {
	for i := range house {
		if house[i].path == dir {
			return &house[i]
		}
	}
	for i := range house {
		if matches(house[i].path, dir) {
			return &house[i]
		}
	}
	return nil
}

// isStd reports whether an import path is of the standard library: its first
// element has no dot.
func isStd(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".")
}

func under(p string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") })
}

func TestEveryImportGoesDownwards(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	for _, s := range sources(t) {
		r := roomOf(s.dir)
		if r == nil {
			t.Errorf("%s: package %s is not in the table of house_test.go. Add it there with its layer, what it may "+
				"import and a sentence on what it knows.", s.name, s.dir)
			continue
		}
		for _, p := range s.imports {
			inside, ok := strings.CutPrefix(p, module+"/")
			switch {
			case ok && s.test:
				// A test may import anything; Go itself refuses cycles.
			case ok:
				checkInside(t, &s, r, inside)
			case isStd(p):
				if slices.Contains(r.never, p) && !s.test {
					t.Errorf("%s imports %s, which it must not: %s", s.name, p, r.why)
				}
				if (p == "testing" || strings.HasPrefix(p, "testing/")) && !s.test && !r.support {
					t.Errorf("%s imports %s outside a test: test code does not belong into the program", s.name, p)
				}
			case under(p, r.outside), s.test && under(p, forTests):
			default:
				t.Errorf("%s imports %s, but %s may import %s from elsewhere: %s", s.name, p, s.dir, list(r.outside),
					r.why)
			}
		}
	}
}

func checkInside(t *testing.T, s *source, r *room, inside string) {
	to := roomOf(inside)
	if to == nil {
		t.Errorf("%s imports %s, which is not in the table of house_test.go", s.name, inside)
		return
	}
	if to.support && !r.support {
		t.Errorf("%s imports %s, which is for tests only: %s", s.name, inside, to.why)
		return
	}
	named := slices.ContainsFunc(r.may, func(m string) bool { return matches(m, inside) })
	below := slices.Contains(r.may, "below") && to.height() < r.height()
	if !named && !below || slices.Contains(r.never, inside) {
		t.Errorf("%s imports %s, but %s may import %s: %s", s.name, inside, s.dir, list(r.may), r.why)
	}
}

func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return "only " + strings.Join(names, ", ")
}

// The table itself keeps the rule that it states.
func TestTableGoesDownwards(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	used := map[string]bool{}
	for _, r := range house {
		used[r.layer] = true
		if r.height() < 0 {
			t.Errorf("%s is in %q, which is no layer", r.path, r.layer)
		}
		if len(strings.Fields(r.why)) < 2 {
			t.Errorf("%s has no reason", r.path)
		}
		for _, m := range r.may {
			to := roomOf(m)
			if m == "below" {
				continue
			}
			if to == nil {
				t.Errorf("%s may import %s, which is not in the table", r.path, m)
			} else if to.height() >= r.height() {
				t.Errorf("%s (in %s) may import %s (in %s): that is not downwards", r.path, r.layer, m, to.layer)
			}
		}
	}
	for _, l := range layers {
		if !used[l] {
			t.Errorf("layer %q has no package", l)
		}
	}
}

// Only one place of the tree runs untrusted code.
func TestWazeroStaysInTheSandbox(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	const wazero, sandbox = "github.com/tetratelabs/wazero", "host/internal/sandbox"
	for _, r := range house {
		if slices.Contains(r.outside, wazero) && !r.support && r.path != sandbox &&
			!strings.HasPrefix(r.path, sandbox+"/") {
			t.Errorf("%s may import wazero; only what lies below %s may", r.path, sandbox)
		}
	}
}

// An outcome stays locked without a receipt. A trial unlocks it, which only a scratch sandbox may do: nothing
// that it decides can be written.
func TestOnlyScratchSandboxesTakeOutcomesApart(t *testing.T) {
	const taken = ".Trial()"
	found := false
	for _, s := range sources(t) {
		src, err := os.ReadFile(filepath.Join(root(t), s.name))
		if err != nil {
			t.Fatal(err)
		}
		switch uses := bytes.Contains(src, []byte(taken)); {
		case !uses || strings.HasPrefix(s.name, "host/internal/archtest/"):
		case strings.HasPrefix(s.name, "host/internal/scratch/"):
			found = true
		default:
			t.Errorf("%s has %s; use the receipt of the outcome's commit", s.name, taken)
		}
	}
	if !found {
		t.Errorf("host/internal/scratch has no %s; does this test look for the right text?", taken)
	}
}

// ARCHITECTURE.md shows the same layers, from the top, with the same packages, except plugins, examples and
// packages that only tests import.
func TestTheTableIsDocumented(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	text, err := os.ReadFile(filepath.Join(root(t), "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## The packages\n")
	_, rest, _ = strings.Cut(rest, "\n```text\n")
	table, _, ok := strings.Cut(rest, "\n```\n")
	if !ok {
		t.Fatal("there is no table in ARCHITECTURE.md")
	}
	var order []string
	shown := map[string]string{}
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if !strings.HasPrefix(line, " ") {
			order = append(order, fields[0])
			fields = fields[1:]
		}
		shown[fields[0]] = order[len(order)-1]
	}
	slices.Reverse(order)
	if i := slices.Index(layers, "proofs"); !slices.Equal(order, layers[:i]) {
		t.Errorf("ARCHITECTURE.md has the layers %q, the table has %q", order, layers[:i])
	}
	for _, r := range house {
		if r.support || strings.Contains(r.path, "*") {
			continue
		}
		if shown[r.path] != r.layer {
			t.Errorf("ARCHITECTURE.md has %s in %q; the table has it in %q", r.path, shown[r.path], r.layer)
		}
		delete(shown, r.path)
	}
	for name := range shown {
		t.Errorf("ARCHITECTURE.md has %s, which is not in the table", name)
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Name()] = true
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) &&
			!slices.Contains(derived, e.Name()) {
			t.Errorf("%s does not belong at the root of the tree; there are only %s and dotfiles", e.Name(),
				strings.Join(topLevel, ", "))
		}
	}
	for _, name := range topLevel {
		if !have[name] {
			t.Errorf("%s is missing at the root of the tree", name)
		}
	}
}

// What is compiled into a guest comes only from this module.
func TestGuestsBringNothingAlong(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./abi", "./guest-sdk",
		"./plugins/...")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	for _, m := range slices.Compact(modules) {
		if m != module && !slices.Contains(guestJSON, m) {
			t.Errorf("guests depend on module %s; they may depend on %s", m,
				list(append([]string{module}, guestJSON...)))
		}
	}
}
