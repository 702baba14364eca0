package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// run runs one command line.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	code = Main(t.Context(), args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// Each kind of error has the exit code that the help promises.
func TestEveryKindHasItsExitCode(t *testing.T) {
	want := map[service.Kind]int{
		service.KindInvalid: exitUsage, service.KindTooLarge: exitUsage, service.KindUnknownType: exitUsage,
		service.KindBadCursor: exitUsage,
		service.KindRejected:  exitRejected, service.KindVersionConflict: exitRejected,
		service.KindOverloaded: exitUnavailable, service.KindUnavailable: exitUnavailable,
		service.KindDeadline: exitUnavailable, service.KindCanceled: exitUnavailable,
		service.KindUnknown: exitUnknown,
		service.KindFull:    exitFull, service.KindQuota: exitFull, service.KindDamaged: exitCheck,
	}
	for k := service.KindInternal; k <= service.KindBadCursor; k++ {
		code, ok := want[k]
		if !ok {
			code = exitFailure
		}
		if got := exitCode(fmt.Errorf("wrapped: %w", service.Errorf(k, "x"))); got != code {
			t.Errorf("%s ends with %d, want %d", k, got, code)
		}
	}
	for err, code := range map[error]int{
		nil: exitOK, errors.New("x"): exitFailure, context.DeadlineExceeded: exitUnavailable,
		usageError{errors.New("x")}: exitUsage, checkError{"x"}: exitCheck,
	} {
		if got := exitCode(err); got != code {
			t.Errorf("%v ends with %d, want %d", err, got, code)
		}
	}
	for code := exitOK; code <= exitCheck; code++ {
		if !strings.Contains(exitHelp, fmt.Sprintf("\n  %d  ", code)) {
			t.Errorf("the help does not explain exit code %d", code)
		}
	}
}

func TestHelpSaysEverything(t *testing.T) {
	code, out, stderr := run(t, "--help")
	if code != exitOK || stderr != "" {
		t.Fatalf("help ends with %d and %q", code, stderr)
	}
	for _, word := range []string{"serve", "deploy", "services", "resources", "send", "query", "events", "journal",
		"conform", "bench", "version", "Exit codes", "$BULKHEAD_CONFIG"} {
		if !strings.Contains(out, word) {
			t.Errorf("the help does not mention %s", word)
		}
	}
	if _, bare, _ := run(t); bare != out {
		t.Error("without arguments the help is another one")
	}
	_, serve, _ := run(t, "serve", "--help")
	flat := strings.Join(strings.Fields(serve), " ")
	defaults := limitVars()
	defaults["snapshot-every"] = "1000"
	for name, value := range defaults {
		flag := "--" + name
		if !strings.Contains(flat, flag+"=") || !strings.Contains(flat, "Default "+value+" (") {
			t.Errorf("serve --help does not show %s with its default %s", flag, value)
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{
		{"fly"}, {"send"}, {"send", "bank", "deposit"}, {"send", "Bank/alice", "deposit"},
		{"send", "bank/alice", "de posit"},
		{"send", "bank/alice", "deposit", "--expect-version", "-1"}, {"query", "bank/alice"},
		{"deploy", "does-not-exist.wasm"},
		{"serve", "--limit-memory", "lots"}, {"serve", "--limit-memory", "64MiB", "--max-memory", "8MiB"},
		{"serve", "--max-sandboxes=-1"}, {"serve", "--journal-group-commits=-1"}, {"serve", "--journal-codec=zip"},
		{"serve", "--stop-timeout=-1s"}, {"serve", "--max-streams=-1"},
		{"serve", "--max-connection-bytes", "1KiB"}, {"serve", "--max-message", "7MiB"},
		{"serve", "--limit-outcome", "64MiB"}, {"serve", "--limit-module", "512MiB"}, {"serve", "--token", "short"},
		{"events", "bank", "--limit=-1"}, {"events", "bank", "--from"}, {"events", "bank", "--from="},
		{"events", "bank", "--from", "--follow"}, {"events", "bank", "--from", "-1"}, {"events", "bank", "--from=0"},
		{"bench", "--accounts=0"}, {"bench", "--accounts=-5"}, {"bench", "--clients=0"}, {"bench", "--connections=0"},
		{"bench", "--duration=-1s"}, {"bench", "--alpha=-1"}, {"bench", "--commands=-1"}, {"services", "show"},
		{"services", "--host", "ftp://nowhere"}, {"services", "--host", "http://"},
		{"services", "--host", "http://localhost:1?a=b"}, {"serve", "--data="}, {"send", "bank/alice", "deposit", "-"},
		{"query", "bank/alice", "balance", "-"}, {"send", "bank/alice", "deposit", "--meta", "a"},
		{"send", "bank/alice", "deposit", "--meta", "a=1", "--meta", "a=2"}, {"help", "fly"}, {"version", "--loud"},
		{"events", "Bank"},
	} {
		code, out, stderr := run(t, args...)
		if code != exitUsage || stderr == "" || out != "" {
			t.Errorf("%q ends with %d, output %q, error %q", args, code, out, stderr)
		}
		if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
			t.Errorf("%q leaves %v behind, %v", args, left, err)
		}
		if code, _, stderr := run(t, append([]string{"--json"}, args...)...); code != exitUsage || !strings.HasPrefix(stderr, `{"error":{"exit":2,`) {
			t.Errorf("%q with --json ends with %d, error %q", args, code, stderr)
		}
	}
}

// Durations in the log have a unit, in either form.
func TestDurationsInTheLogHaveUnits(t *testing.T) {
	for format, want := range map[string]string{"text": " took=62ms", "json": `"took":"62ms"`} {
		var out strings.Builder
		c := serveCmd{}
		c.LogFormat = format
		slog.New(c.handler(&out)).Info("done", "took", 62*time.Millisecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}

// The flags of a command may come before it.
func TestFlagsBeforeTheCommand(t *testing.T) {
	const nobody = "127.0.0.1:1"
	for _, args := range [][]string{
		{"--host", nobody, "services"}, {"--host=" + nobody, "services", "list"},
		{"--json", "--host", nobody, "--wait", "1ms", "journal", "stats", "--measure"},
		{"--measure", "--host", nobody, "journal", "stats"}, {"--retries", "0", "--host", nobody, "send", "--",
			"bank/alice", "open"},
		{"--host", nobody, "--json", "query", "bank/alice", "balance"},
	} {
		if code, _, stderr := run(t, args...); code != exitUnavailable || !strings.Contains(stderr, nobody) {
			t.Errorf("%q ends with %d, error %q", args, code, stderr)
		}
	}
	for args, want := range map[[3]string]string{
		{"--host", nobody, "version"}: "unknown flag --host", {"--hosts", nobody, "services"}: "unknown flag --hosts",
		{"services", "--host", ""}: "",
		{"--host", nobody, ""}:     "", {"--measure", "services", "list"}: "unknown flag --measure",
	} {
		if code, _, stderr := run(t, args[:]...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q ends with %d, error %q", args, code, stderr)
		}
	}
}

func TestNoHostThere(t *testing.T) {
	for _, args := range [][]string{{"services"}, {"send", "bank/alice", "open", "--retries", "0"},
		{"query", "bank/alice", "balance"}, {"events", "bank"}, {"services", "--wait", "1ms"}} {
		// Port 1 is reserved, so no one listens there.
		if code, _, stderr := run(t, append(args, "--host", "http://127.0.0.1:1")...); code != exitUnavailable ||
			stderr == "" {
			t.Errorf("%q ends with %d, error %q", args, code, stderr)
		}
	}
}

// Flags take precedence over the environment, and the environment over the file.
func TestSettingsComeInOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host := func(args ...string) string {
		var got string
		e := &env{ctx: t.Context()}
		e.show(&strings.Builder{}, &strings.Builder{})
		e.parsed = func(c *cli) { got = c.Services.Remote.Host }
		if _, err := parse(e, append([]string{"services", "--config", file}, args...)); err != nil {
			t.Fatal(err)
		}
		return got
	}
	write(`{"limit_memory": 1048576, "stop_timeout": "5s"}`)
	if got := host(); got != "http://127.0.0.1:8080" {
		t.Errorf("default is %s", got)
	}
	write(`{"host": "http://file:1"}`)
	if got := host(); got != "http://file:1" {
		t.Errorf("with a file: %s", got)
	}
	t.Setenv("BULKHEAD_HOST", "http://env:1")
	if got := host(); got != "http://env:1" {
		t.Errorf("with file and environment: %s", got)
	}
	if got := host("--host", "http://flag:1"); got != "http://flag:1" {
		t.Errorf("with everything: %s", got)
	}
	t.Setenv("BULKHEAD_HOST", "")
	if got := host(); got != "http://file:1" {
		t.Errorf("with a file and an empty variable: %s", got)
	}
	write("\ufeff" + `{"host": "http://marked:1"}`)
	if got := host(); got != "http://marked:1" {
		t.Errorf("with a file that begins with a byte order mark: %s", got)
	}
	for text, want := range map[string]string{
		`{"host": "http://a:1", "host": "http://b:1"}`: "sets host twice", `["host"]`: "an array", `null`: "null", `"host"`: "a string",
		"": "empty", " \n": "empty", "{\n\n\"host\": nul}": "line 3", `{"host": "http://a:1"`: "unexpected EOF", `{} {}`: "follows the object", `{"host" 1}`: "colon",
	} {
		write(text)
		if code, _, stderr := run(t, "--config", file, "version"); code != exitUsage ||
			!strings.Contains(stderr, "configuration file cannot be used: ") || !strings.Contains(stderr, want) {
			t.Errorf("a configuration of %q ends with %d: %s, want %q", text, code, stderr, want)
		}
	}
	for _, text := range []string{`{"hots": "http://file:1"}`, `[]`, `{`, ``, `null`, `{} {}`, `{"meta": {"a": "b"}}`, `{"id": "once"}`} {
		write(text)
		if code, _, stderr := run(t, "--config", file, "version"); code != exitUsage ||
			!strings.Contains(stderr, "configuration file") {
			t.Errorf("a configuration of %q ends with %d: %s", text, code, stderr)
		}
	}
}

// A number in a file keeps its exact value, or is refused. Flags for one command line only cannot be set
// elsewhere.
func TestNumbersOfTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	load := func(text string) (c cli, err error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e := &env{ctx: t.Context(), parsed: func(parsed *cli) { c = *parsed }}
		e.show(&strings.Builder{}, &strings.Builder{})
		_, err = parse(e, []string{"bench", "--config", file, "--module", file})
		return c, err
	}
	c, err := load(`{"accounts": 5, "alpha": [0.5, 1], "duration": "2s", "group_commit": false, "data": "somewhere", "way": ["http"]}`)
	if b := c.Bench; err != nil || b.Accounts != 5 || !slices.Equal(b.Alpha, []float64{0.5, 1}) ||
		b.Duration != 2*time.Second || b.Group || !slices.Equal(b.Way, []string{"http"}) {
		t.Errorf("%+v, %v", b, err)
	}
	if c.Bench.Data != "" {
		t.Errorf("the load would run in the host's data, %s", c.Bench.Data)
	}
	for _, text := range []string{`{"accounts": 1.5}`, `{"accounts": "many"}`, `{"accounts": 1e99}`, `{"accounts": true}`} {
		if c, err := load(text); err == nil {
			t.Errorf("%s gives %d accounts", text, c.Bench.Accounts)
		}
	}
}

// A variable without a setting prevents a host from starting, as it would not have the intended effect. The
// error names it and the setting that was probably meant; other commands only warn. Variables of Kubernetes
// for a service called bulkhead are no mistake.
func TestVariablesThatNoSettingHas(t *testing.T) {
	t.Setenv("BULKHEAD_TOKN", "0123456789abcdef")
	t.Setenv("BULKHEAD_LIMIT_MEMROY", "1GiB")
	t.Setenv("BULKHEAD_PORT", "8080")
	t.Setenv("BULKHEAD_ID", "once") // of --id, which is for one command line
	t.Setenv("BULKHEAD_SERVICE_HOST", "10.0.0.1")
	t.Setenv("BULKHEAD_SERVICE_PORT_HTTP", "8080")
	t.Setenv("BULKHEAD_PORT_8080_TCP", "tcp://10.0.0.1:8080")
	t.Setenv("BULKHEAD_PORT_8080_TCP_ADDR", "10.0.0.1")
	t.Setenv("BULKHEAD_BLUE_PORT", "tcp://10.0.0.1:8080")
	t.Setenv("BULKHEAD_TOKEN_FILE", "") // counts as unset
	want := []string{
		"BULKHEAD_ID is set in the environment, but there is no such setting",
		"BULKHEAD_LIMIT_MEMROY is set in the environment, but there is no such setting; did you mean " +
			"BULKHEAD_LIMIT_MEMORY?",
		"BULKHEAD_PORT is set in the environment, but there is no such setting",
		"BULKHEAD_TOKN is set in the environment, but there is no such setting; did you mean BULKHEAD_TOKEN?",
	}
	data := filepath.Join(t.TempDir(), "data")
	code, _, stderr := run(t, "serve", "--data", data)
	if code != exitUsage || stderr != "bulkhead: "+strings.Join(want, "\nbulkhead: ")+
		"\nRun \"bulkhead serve --help\" for how it is used.\n" {
		t.Errorf("serve ends with %d and says\n%s", code, stderr)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("serve has made its directory all the same")
	}
	code, out, stderr := run(t, "version")
	if code != exitOK || out == "" || stderr != "bulkhead: warning: "+strings.Join(want, "\nbulkhead: warning: ")+"\n" {
		t.Errorf("version ends with %d, prints %q and says\n%s", code, out, stderr)
	}
	code, _, stderr = run(t, "--json", "version")
	if code != exitOK || strings.Count(stderr, "\n") != len(want) || !strings.HasPrefix(stderr, `{"warning":"BULKHEAD_ID is set`) {
		t.Errorf("version --json ends with %d and says\n%s", code, stderr)
	}
}

// Text that is not UTF-8 is refused anywhere, and not shown, as it may be a secret.
func TestWhatIsNotUTF8IsRefused(t *testing.T) {
	for i, args := range [][]string{
		{"send", "count/k\xff", "add"}, {"send", "count/k", "add", "\"\xff\""},
		{"send", "count/k", "add", "--meta", "a=\xff"},
		{"query", "count/k", "get", "--token=0123456789abcdef\xff"}, {"events", "count/\xed\xa0\x80"}, {"\xff"},
	} {
		code, out, stderr := run(t, args...)
		want := fmt.Sprintf("bulkhead: argument %d is not UTF-8\n",
			slices.IndexFunc(args, func(s string) bool { return !utf8.ValidString(s) })+1)
		if code != exitUsage || out != "" || !strings.HasPrefix(stderr, want) {
			t.Errorf("%d: %q ends with %d, prints %q and says %q", i, args, code, out, stderr)
		}
	}
	t.Setenv("BULKHEAD_TOKEN", "0123456789abcdef\xff")
	code, _, stderr := run(t, "version")
	if code != exitUsage || !strings.HasPrefix(stderr, "bulkhead: BULKHEAD_TOKEN in the environment is not UTF-8\n") ||
		strings.Contains(stderr, "0123") {
		t.Errorf("a token that is not UTF-8: %d, %q", code, stderr)
	}
}

// An empty variable counts as unset, for every setting.
func TestEmptyVariablesAreUnset(t *testing.T) {
	var known []string
	parsed := func() (c cli) {
		e := &env{ctx: t.Context(), parsed: func(p *cli) { c = *p }}
		e.show(&strings.Builder{}, &strings.Builder{})
		if _, err := parse(e, []string{"serve"}); err != nil {
			t.Fatal(err)
		}
		known = e.environment.known
		return c
	}
	want := parsed()
	if len(known) < 50 {
		t.Fatalf("there are the variables %q", known)
	}
	_, help, _ := run(t, "serve", "--help")
	for _, name := range known {
		t.Setenv(name, "")
	}
	if got := parsed(); !reflect.DeepEqual(got, want) {
		t.Errorf("with empty variables the settings are\n%+v\nwant\n%+v", got, want)
	}
	if _, same, _ := run(t, "serve", "--help"); same != help {
		t.Errorf("with empty variables the help is another one:\n%s", same)
	}
}

// A host can be named without the scheme.
func TestAHostWithoutAScheme(t *testing.T) {
	for address, want := range map[string]string{
		"localhost:8080": "http://localhost:8080", "localhost": "http://localhost", "[::1]:80": "http://[::1]:80",
		"example.org/behind":  "http://example.org/behind",
		"https://example.org": "https://example.org", "http://a:1": "http://a:1",
	} {
		if got := hostURL(address); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
	if code, _, stderr := run(t, "services", "--host", "localhost:1"); code != exitUnavailable ||
		!strings.Contains(stderr, "localhost:1") {
		t.Errorf("nobody at localhost:1 ends with %d: %s", code, stderr)
	}
}

func TestHelpIsAVerb(t *testing.T) {
	for _, args := range [][]string{{}, {"send"}, {"journal", "verify"}} {
		code, out, stderr := run(t, append([]string{"help"}, args...)...)
		if _, want, _ := run(t, append(args, "--help")...); code != exitOK || out != want || stderr != "" {
			t.Errorf("help %q ends with %d, prints\n%s\nand says %s", args, code, out, stderr)
		}
	}
}

// Errors that refer to the help name the command.
func TestTheHintNamesTheCommand(t *testing.T) {
	for hint, args := range map[string][]string{
		`"bulkhead journal verify --help"`: {"journal", "verify", "--loud"}, `"bulkhead send --help"`: {"send", "bank"}, `"bulkhead --help"`: {"fly"},
	} {
		if _, _, stderr := run(t, args...); !strings.Contains(stderr, hint) {
			t.Errorf("%q: %s, want %s", args, stderr, hint)
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	if code, out, _ := run(t, "version"); code != exitOK || !strings.HasPrefix(out, "bulkhead dev, ABI 1, go") {
		t.Errorf("version ends with %d and prints %q", code, out)
	}
	for _, args := range [][]string{{"--version"}, {"send", "--version"}} {
		if code, out, _ := run(t, args...); code != exitOK || !strings.HasPrefix(out, "bulkhead dev, ABI 1, go") {
			t.Errorf("%q ends with %d and prints %q", args, code, out)
		}
	}
	if code, out, _ := run(t, "version", "--json"); code != exitOK || !strings.HasPrefix(out, `{"version":"dev",`) {
		t.Errorf("version --json ends with %d and prints %q", code, out)
	}
}
