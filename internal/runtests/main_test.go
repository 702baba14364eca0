package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// module writes a module with these files and goes there.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("GOFLAGS", "")
	files["go.mod"] = "module example.org/m\n\ngo 1.26\n"
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const tests = "import \"testing\"\n\n"

func TestRun(t *testing.T) {
	prove.SkipShort(t, "it runs go test")
	passing := "package a\n\n" + tests +
		"func TestQuick(t *testing.T) { t.Log(\"unseen\") }\n\nfunc TestSlow(t *testing.T) { t.Run(\"part\", func(t " +
		"*testing.T) {}) }\n"
	for _, c := range []struct {
		name, test string
		args       []string
		err        string
		want, not  []string
	}{
		{name: "passes", test: passing, want: []string{"ok  \texample.org/m/a"}, not: []string{"unseen", "RUN"}},
		{name: "verbose", test: passing, args: []string{"-v"}, want: []string{"unseen", "--- PASS: TestQuick"}},
		{name: "no test is meant", test: passing, args: []string{"-run", "^TestRenamed$"},
			err: "no test ran in example.org/m/a"},
		{name: "no proof",
			test: "package a\n\nimport (\n\t\"flag\"\n\t\"testing\"\n)\n\nvar _ = flag.Bool(\"prove\", false, " +
				"\"\")\n\nfunc TestQuick(t *testing.T) {}\n",
			args: []string{"-v", "-prove"}, err: "these packages have no proof"},
		{name: "fails",
			test: "package a\n\n" + tests +
				"func TestGood(t *testing.T) { t.Log(\"unseen\") }\n\nfunc TestBad(t *testing.T) { t.Error(\"why it " +
				"fails\") }\n",
			err: "exit status 1", want: []string{"why it fails", "--- FAIL: TestBad", "FAIL\texample.org/m/a"},
			not: []string{"unseen"}},
		{name: "panics", test: "package a\n\n" + tests + "func TestBad(t *testing.T) { panic(\"the panic\") }\n",
			err: "exit status 1", want: []string{"the panic", "a_test.go"}},
		{name: "does not build", test: "package a\n\n" + tests + "func TestBad(t *testing.T) { undefined() }\n",
			err: "exit status 1", want: []string{"undefined: undefined"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			module(t, map[string]string{"a/a_test.go": c.test})
			var out bytes.Buffer
			err := run(&out, "times/a.json", append([]string{"./..."}, c.args...))
			if !strings.Contains(fmt.Sprint(err), c.err) || err == nil != (c.err == "") {
				t.Errorf("error %v, want %q", err, c.err)
			}
			for _, s := range c.want {
				if !strings.Contains(out.String(), s) {
					t.Errorf("does not print %q:\n%s", s, &out)
				}
			}
			for _, s := range c.not {
				if strings.Contains(out.String(), s) {
					t.Errorf("prints %q:\n%s", s, &out)
				}
			}
		})
	}
}

// Events of a test whose subtests run side by side: go test tells their times, but
// counts none of it for the test.
func TestTimesOfSubtests(t *testing.T) {
	p := printer{w: new(bytes.Buffer)}
	const events = `{"Action":"pass","Package":"a","Test":"TestBoth/one/inner","Elapsed":3}
{"Action":"pass","Package":"a","Test":"TestBoth/one","Elapsed":3.5}
{"Action":"pass","Package":"a","Test":"TestBoth/two","Elapsed":4}
{"Action":"pass","Package":"a","Test":"TestBoth","Elapsed":0.1}
{"Action":"pass","Package":"a","Test":"TestInTurn/one","Elapsed":1}
{"Action":"pass","Package":"a","Test":"TestInTurn","Elapsed":2}
`
	if err := p.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if want := []timing{{7.5, "a", "TestBoth", false}, {2, "a", "TestInTurn", false}}; !slices.Equal(p.timings, want) {
		t.Errorf("times %v, want %v", p.timings, want)
	}
}

func TestSlowest(t *testing.T) {
	module(t,
		map[string]string{"a/a_test.go": "package a\n\n" + tests +
			"func TestOne(t *testing.T) { t.Run(\"part\", func(*testing.T) {}) }\n"})
	var out bytes.Buffer
	if err := run(&out, "times.json", []string{"./..."}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if err := write("more.json", []timing{{2, "b", "TestTwo", true}, {3, "b", "TestThree", false}}); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := printSlowest(&out, 10, []string{"times.json", "more.json"}); err != nil {
		t.Fatal(err)
	}
	const want = "    3.0 s  b TestThree\n    2.0 s  b TestTwo (-race)\n    0.0 s  example.org/m/a TestOne\n"
	if got := out.String(); got != want {
		t.Errorf("the slowest tests are\n%s, and should be\n%s", got, want)
	}
	out.Reset()
	if err := printSlowest(&out, 1, []string{"more.json"}); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("the slowest test is %q (%v)", &out, err)
	}
	if err := os.WriteFile("none.json", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := printSlowest(&out, 10, []string{"none.json"}); err == nil {
		t.Error("a run of no tests has slowest ones")
	}
}
