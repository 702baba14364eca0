package workflow_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

const project = "github.com/bulkhead-wasm/bulkhead"

// workflow is what service.yml may have. A member that is not here is refused.
type workflow struct {
	Name        string
	On          map[string]*struct{ Branches []string }
	Permissions map[string]string
	Jobs        map[string]struct {
		RunsOn string `yaml:"runs-on"`
		Steps  []step
	}
}

type step struct {
	Name, Uses, If, Run string
	With, Env           map[string]string
}

// read parses service.yml, and returns its only job's steps.
func read(t *testing.T) []step {
	t.Helper()
	f, err := os.Open("service.yml")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var w workflow
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&w); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(new(any)); err != io.EOF {
		t.Errorf("there is more than one document: %v", err)
	}
	if w.Name == "" || len(w.On) != 2 || w.Permissions["contents"] != "read" || len(w.Permissions) != 1 ||
		len(w.Jobs) != 1 || w.Jobs["check"].RunsOn == "" {
		t.Fatalf("it is not a workflow that may only read: %+v", w)
	}
	action := regexp.MustCompile(`^actions/[a-z-]+@v\d+$`)
	for i, s := range w.Jobs["check"].Steps {
		isAction, isCommand := action.MatchString(s.Uses) && s.Run == "", s.Uses == "" && s.Run != "" && s.Name != ""
		if !isAction && !isCommand {
			t.Errorf("step %d is neither an action in a version nor a named command: %+v", i+1, s)
		}
	}
	return w.Jobs["check"].Steps
}

// The steps pass in the repository of a service and deploy it over what its earlier version wrote. The repository is
// made of examples/evolution: v5 is what is to be deployed, and v3 is what runs.
func TestTheStepsDeployAService(t *testing.T) {
	raced.Skip(t, "it runs other processes only")
	steps := read(t)
	wasm := hosttest.Module(t, project+"/examples/evolution/v3")
	program, err := hosttest.Program()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hosttest.RemoveBuilt)
	const token = "a-token-of-this-test"
	host := hosttest.StartChild(t, hosttest.ChildOptions{Program: program, Dir: t.TempDir(),
		Env: []string{"BULKHEAD_TOKEN=" + token}})
	r := &repository{dir: filepath.Join(t.TempDir(), "parcels"), vars: map[string]string{
		"vars.BULKHEAD_HOST": host.Address, "secrets.BULKHEAD_TOKEN": token}}
	r.make(t)
	bulkhead := func(args ...string) string {
		t.Helper()
		out, err := r.run(program+" "+strings.Join(args, " "), steps[len(steps)-1].Env)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	v3 := filepath.Join(t.TempDir(), "v3.wasm")
	if err := os.WriteFile(v3, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	bulkhead("deploy", v3)
	bulkhead("send", "parcels/P-1", "scan", `'{"place":"Lyon, FR"}'`)

	// A build that cannot read what v3 wrote does not pass the test, as there is an export of the log. Without that
	// it is refused by the host.
	whole := r.edit(t, "main.go", `guest.Upcast(Service, "arrived"`, `guest.Upcast(Service, "came"`)
	if failed := r.steps(steps); !strings.HasPrefix(failed, "Test") || !strings.Contains(failed, `"arrived"`) {
		t.Errorf("without an upcaster: %s", failed)
	}
	tests := r.edit(t, "main_test.go", "func TestWhat", "func What")
	if failed := r.steps(steps); !strings.HasPrefix(failed, "Verify") || !strings.Contains(failed, `"arrived"`) {
		t.Errorf("without an upcaster and a test: %s", failed)
	}
	tests()
	whole()

	if failed := r.steps(steps); failed != "" {
		t.Fatal(failed)
	}
	if got, want := bulkhead("query", "parcels/P-1", "track"), `{"stops":[{"city":"Lyon","country":"FR"}]`; !strings.
		Contains(got, want) {
		t.Errorf("it answers %s, want %s", got, want)
	}
}

// repository is that of a service.
type repository struct {
	dir  string
	vars map[string]string // what expressions of the workflow stand for
}

// make copies v5 to a repository with a go.mod of its own, which uses the project as it is here.
func (r *repository) make(t *testing.T) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"examples/evolution/v5": "", "examples/evolution/testdata": "../testdata"} {
		if err := os.CopyFS(filepath.Join(r.dir, to), os.DirFS(filepath.Join(root, from))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := r.run("go mod edit -module example.com/parcels -require "+project+"@v0.0.0 -replace "+project+"="+
		root+" -tool "+project+"/host/cmd/bulkhead", nil); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// edit replaces a text in a file, once. undo writes back what was there.
func (r *repository) edit(t *testing.T, name, from, to string) (undo func()) {
	t.Helper()
	name = filepath.Join(r.dir, name)
	was, err := os.ReadFile(name)
	if err != nil || bytes.Count(was, []byte(from)) != 1 {
		t.Fatalf("%s does not have %q once: %v", name, from, err)
	}
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(bytes.Replace(was, []byte(from), []byte(to), 1))
	return func() { write(was) }
}

// steps runs the commands of steps in order, as a push would, until one fails. It returns the name and the output of
// that one.
func (r *repository) steps(steps []step) (failed string) {
	for _, s := range steps {
		if s.Run == "" {
			continue // what actions do is done: the tree is there, and so is Go
		}
		if out, err := r.run(s.Run, s.Env); err != nil {
			return fmt.Sprintf("%s: %v\n%s", s.Name, err, out)
		}
	}
	return ""
}

var expression = regexp.MustCompile(`\$\{\{ *([^} ]*) *\}\}`)

// run runs commands as GitHub does.
func (r *repository) run(commands string, env map[string]string) (output string, err error) {
	cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", commands)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := expression.ReplaceAllStringFunc(env[name], func(x string) string {
			known, ok := r.vars[expression.FindStringSubmatch(x)[1]]
			if !ok {
				err = fmt.Errorf("%s is not set", x)
			}
			return known
		})
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
