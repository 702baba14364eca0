// Command runtests runs `go test` and keeps how long each test took.
//
//	runtests [-times FILE] ARGUMENTS-OF-GO-TEST...
//	runtests -slowest N FILE...
//
// GO names another go command.
//
// The first form prints what `go test` prints, writes the times to FILE, and ends with its exit code. It also fails
// when a package has tests and none of them ran, and with -prove when there was no proof: a renamed test or a wrong
// -run must not pass. The second form prints the N slowest tests of these files.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

func main() {
	set := flag.NewFlagSet("runtests", flag.ExitOnError)
	times := set.String("times", "", "write the time of each test to this file")
	slowest := set.Int("slowest", 0, "print this number of tests from the files that are named")
	// The arguments of go test have flags, too: ours end at the first that is not ours.
	args := os.Args[1:]
	for len(args) >= 2 && (args[0] == "-times" || args[0] == "-slowest") {
		_ = set.Parse(args[:2])
		args = args[2:]
	}
	var err error
	if *slowest > 0 {
		err = printSlowest(os.Stdout, *slowest, args)
	} else {
		err = run(os.Stdout, *times, args)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "runtests:", err)
		os.Exit(1)
	}
}

// event is a line of `go test -json`; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// timing is a line of the file of times.
type timing struct {
	Seconds float64 `json:"seconds"`
	Package string  `json:"package"`
	Test    string  `json:"test"`
	Race    bool    `json:"race,omitempty"`
}

// run runs go test with these arguments.
func run(w io.Writer, times string, args []string) error {
	cmd := exec.Command(cmp.Or(os.Getenv("GO"), "go"), append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := printer{w: w, verbose: slices.Contains(args, "-v"), race: slices.Contains(args, "-race"),
		prove: slices.Contains(args, "-prove")}
	readErr := p.read(out)
	_, _ = io.Copy(io.Discard, out) // otherwise go test would wait for us forever
	if err := errors.Join(cmd.Wait(), readErr, p.verdict()); err != nil {
		return err
	}
	if times == "" {
		return nil
	}
	return write(times, p.timings)
}

// printer prints the events of go test as go test without -json does.
type printer struct {
	w       io.Writer
	verbose bool
	race    bool
	prove   bool             // the tests were asked for proofs
	proofs  int              // proofs that have begun
	waiting map[string]*pack // packages that have not ended
	idle    []string         // packages of which no test ran
	packs   int              // packages that have ended
	timings []timing
}

// pack is what a package has printed so far.
type pack struct {
	lines  []event
	passed map[string]bool
	times  map[string]float64 // seconds of the subtests that have ended, by the test that they are of
}

func (p *printer) read(r io.Reader) error {
	p.waiting = map[string]*pack{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil { // not from test2json
				fmt.Fprintf(p.w, "%s", line)
			} else {
				p.event(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *printer) event(e event) {
	if e.Action == "build-output" {
		fmt.Fprint(p.w, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	of := p.waiting[e.Package]
	if of == nil {
		of = &pack{passed: map[string]bool{}, times: map[string]float64{}}
		p.waiting[e.Package] = of
	}
	switch e.Action {
	case "output":
		if strings.Contains(e.Output, prove.Announcement) {
			p.proofs++
		}
		if strings.HasPrefix(e.Output, "testing: warning: no tests to run") {
			p.idle = append(p.idle, e.Package)
		}
		if p.verbose {
			fmt.Fprint(p.w, e.Output)
		} else {
			of.lines = append(of.lines, e)
		}
	case "pass", "skip", "fail":
		p.ended(of, e)
	}
}

func (p *printer) ended(of *pack, e event) {
	if e.Test != "" {
		of.passed[e.Test] = e.Action != "fail"
		p.timings = append(p.timings, of.ended(e, p.race)...)
		return
	}
	for _, l := range of.lines {
		switch {
		case l.Test != "" && (e.Action != "fail" || of.passed[l.Test]):
		case e.Action != "fail" && !summary(l.Output):
		default:
			fmt.Fprint(p.w, l.Output)
		}
	}
	p.packs++
	delete(p.waiting, e.Package)
}

// ended counts the time of a test, and returns it unless it is a subtest. The time
// that go test tells of a test lacks its subtests if they run side by side.
func (of *pack) ended(e event, race bool) []timing {
	seconds := max(e.Elapsed, of.times[e.Test]) // which has the sum of its subtests
	delete(of.times, e.Test)
	if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
		of.times[e.Test[:i]] += seconds
		return nil
	}
	return []timing{{seconds, e.Package, e.Test, race}}
}

// summary reports whether a line is the one that go test prints for a package that passed.
func summary(line string) bool {
	return strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "?   \t") || strings.HasPrefix(line, "\t")
}

// verdict is what go test itself does not count as a failure.
func (p *printer) verdict() error {
	switch {
	case p.packs == 0:
		return errors.New("go test ran no package")
	case p.prove && p.proofs == 0:
		return errors.New("these packages have no proof")
	case len(p.idle) > 0:
		return fmt.Errorf("no test ran in %s", strings.Join(p.idle, ", "))
	}
	return nil
}

func write(name string, timings []timing) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	for _, t := range timings {
		if err := enc.Encode(t); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// printSlowest prints the n slowest tests of these files of times.
func printSlowest(w io.Writer, n int, files []string) error {
	var all []timing
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		for dec := json.NewDecoder(f); ; {
			var t timing
			if err := dec.Decode(&t); err == io.EOF {
				break
			} else if err != nil {
				_ = f.Close()
				return fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, t)
		}
		_ = f.Close()
	}
	if len(all) == 0 {
		return errors.New("no times: no test has run")
	}
	slices.SortStableFunc(all, func(a, b timing) int { return cmp.Compare(b.Seconds, a.Seconds) })
	for _, t := range all[:min(n, len(all))] {
		race := ""
		if t.Race {
			race = " (-race)"
		}
		fmt.Fprintf(w, "%7.1f s  %s %s%s\n", t.Seconds, t.Package, t.Test, race)
	}
	return nil
}
