package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// env is the environment in which a command runs.
type env struct {
	ctx     context.Context
	in      io.Reader
	out     *safetext.Writer // escapes what is unsafe on a terminal
	err     *safetext.Writer // escapes as out does
	json    bool
	parsed  func(*cli) // if set, gets what was parsed; for tests
	command string     // the chosen command and a space, for messages; may be empty

	environment environment

	rawOut   io.Writer // what out and err write to
	rawErr   io.Writer
	terminal bool     // standard error is a terminal
	programs bool     // standard error is for programs, as JSON, even without --json
	screen   bool     // standard output is a terminal
	ends     []func() // called at the end, in reverse order
}

// show sets the writers behind out and err.
func (e *env) show(out, errs io.Writer) {
	e.rawOut, e.rawErr = out, errs
	e.out, e.err = safetext.NewWriter(out), safetext.NewWriter(errs)
}

// atEnd makes f called at the end, after all output.
func (e *env) atEnd(f func()) { e.ends = append(e.ends, f) }

func (e *env) end() {
	_ = errors.Join(e.out.Flush(), e.err.Flush()) // there is no one to report it to
	for _, f := range slices.Backward(e.ends) {
		f()
	}
}

// cli is the command line.
type cli struct {
	Config kong.ConfigFlag `placeholder:"FILE" help:"JSON file with settings. Members are named like the flags, with '_' for '-'."`
	JSON   bool            `help:"Print JSON: one object, or one object per line for lists. Errors are printed to standard error as JSON too."`
	About  versionFlag     `name:"version" env:"-" help:"Print the version and exit."`

	Serve       serveCmd       `cmd:"" help:"Run a host."`
	Deploy      deployCmd      `cmd:"" help:"Upload a module and run it as a service, or replace the module of a service."`
	Check       checkCmd       `cmd:"" help:"Say whether a module would be deployed, and verify it against the log of a service."`
	Deployments deploymentsCmd `cmd:"" help:"Show the history of a service: which modules it ran, since when, and with which limits."`
	Rollback    rollbackCmd    `cmd:"" help:"Deploy an earlier deployment of a service again, with its module, limits and settings."`
	Quarantine  quarantineCmd  `cmd:"" help:"List the entities of a service that its module cannot bring back from their events."`
	Release     releaseCmd     `cmd:"" help:"Try at once to bring back a quarantined entity."`
	Services    servicesCmd    `cmd:"" help:"List, show, describe or delete services."`
	Resources   resourcesCmd   `cmd:"" help:"Show how much of the host's resources is in use, and by whom."`
	Modules     modulesCmd     `cmd:"" help:"List or delete stored modules."`
	Send        sendCmd        `cmd:"" help:"Send a command to an entity."`
	Query       queryCmd       `cmd:"" help:"Send a query to an entity."`
	Events      eventsCmd      `cmd:"" help:"Read or follow the events of a service or an entity."`
	Journal     journalCmd     `cmd:"" help:"Back up, restore, verify, dump, export and import journals."`
	Conform     conformCmd     `cmd:"" help:"Check a module against the rules of the ABI."`
	Inspect     inspectCmd     `cmd:"" help:"Describe a module: its manifest, sizes, limits, and what it takes to start."`
	Bench       benchCmd       `cmd:"" help:"Measure a host under load with a bank, then check the journal and the balances."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
	Help        helpCmd        `cmd:"" help:"Show the help of a command."`
}

// helpCmd is --help as a verb.
type helpCmd struct {
	Command []string `arg:"" optional:"" help:"The command, such as journal verify."`
}

func (c *helpCmd) Run(e *env) error {
	json := e.json
	_, err := parse(e, append(slices.Clone(c.Command), "--help"))
	e.json = json
	return err
}

// helpWanted is the panic with which kong's exit after the help is unwound.
type helpWanted struct{}

// parse finds the command to run; nil if only help was to be printed.
func parse(e *env, args []string) (run func() error, err error) {
	var c cli
	vars := kong.Vars{"snapshot_every": strconv.Itoa(service.Settings{}.WithDefaults().SnapshotEvery),
		"verify_entities":     strconv.Itoa(service.DefaultVerifyEntities),
		"verify_time":         service.DefaultVerifyTime.String(),
		"verify_commands":     strconv.Itoa(service.DefaultVerifyCommands),
		"verify_command_time": service.DefaultVerifyCommandTime.String()}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(helpWanted); !ok {
				panic(p)
			}
			run, err = nil, nil
		}
	}()
	k, err := kong.New(&c,
		kong.Name("bulkhead"),
		kong.Description("A WebAssembly host for untrusted event-sourced services: each in a sandbox of its own, "+
			"each event on disk before anybody sees it.\n\n"+exitHelp),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.DefaultEnvars(strings.TrimSuffix(envPrefix, "_")),
		kong.Configuration(loadConfig),
		kong.Writers(e.out, e.err),
		kong.Exit(func(int) { panic(helpWanted{}) }),
		vars,
		kong.Bind(e),
		kong.PostBuild(completeHelp),
		kong.PostBuild(e.environment.read),
	)
	if err != nil {
		return nil, fmt.Errorf("command line: %w", err) // a bug, which any test finds
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	e.json = wantsJSON(args)
	if err := e.environment.texts(args); err != nil {
		return nil, usageError{err}
	}
	ctx, err := k.Parse(inOrder(k, args))
	var wrong *kong.ParseError
	if errors.As(err, &wrong) {
		ctx = wrong.Context
	}
	if ctx != nil && ctx.Selected() != nil {
		e.command = commandOf(ctx.Selected()) + " "
	}
	if err != nil {
		return nil, usageError{err}
	}
	e.json = c.JSON
	if e.parsed != nil {
		e.parsed(&c)
	}
	return func() error {
		if e.command != serveCommand {
			e.warn(e.environment.strange...)
		}
		return ctx.Run(e)
	}, nil
}

// completeHelp completes the help of the flags of limits.
func completeHelp(k *kong.Kong) error {
	return kong.Visit(k.Model, func(n kong.Visitable, next kong.Next) error {
		if f, ok := n.(*kong.Flag); ok {
			limitHelp(f)
		}
		return next(nil)
	})
}

// commandOf is a command without its arguments, such as "journal verify".
func commandOf(n *kong.Node) string {
	var names []string
	for ; n.Type == kong.CommandNode; n = n.Parent {
		names = append(names, n.Name)
	}
	slices.Reverse(names)
	return strings.Join(names, " ")
}

// wantsJSON looks for --json before parsing, so that a parse error is printed in the requested form.
func wantsJSON(args []string) bool {
	for _, a := range args {
		switch a {
		case "--json", "--json=true":
			return true
		case "--json=false", "--":
			return false
		}
	}
	wants, err := strconv.ParseBool(os.Getenv(envPrefix + "JSON"))
	return wants && err == nil
}

// warn prints a problem that does not prevent the command, on standard error.
func (e *env) warn(lines ...string) {
	for _, line := range lines {
		if e.json || e.programs {
			_ = writeJSON(e.err, map[string]string{"warning": line}, false)
			continue
		}
		fmt.Fprintf(e.err, "bulkhead: warning: %s\n", safetext.Text(line))
	}
}

// print shows a result: as JSON, or by the function for people.
func (e *env) print(v any, human func(w io.Writer)) {
	if e.json {
		_ = writeJSON(e.out, v, e.screen) // the reader may close the pipe
		return
	}
	human(e.out)
}

// printLine is print for one of several results; with --json each is one line.
func (e *env) printLine(v any, human func(w io.Writer)) {
	if e.json {
		_ = writeJSON(e.out, v, false)
		return
	}
	human(e.out)
}

// screenWidth is the maximum length of a JSON text that is shown in one line on a terminal.
const screenWidth = 80

// body shows the body of a reply: in one line, or indented if it is long JSON and standard output is a
// terminal.
func (e *env) body(w io.Writer, data []byte) {
	line := safetext.Body(data)
	if e.screen && len(line) > screenWidth && json.Valid(data) {
		line = string(indented([]byte(line)))
	}
	fmt.Fprintln(w, line)
}

// writeJSON writes v in one line, or indented. What is unsafe on a terminal is escaped within JSON strings.
func writeJSON(w io.Writer, v any, indent bool) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err // a host sent invalid JSON
	}
	line := safetext.JSON(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	if indent {
		line = indented(line)
	}
	_, err := w.Write(append(line, '\n'))
	return err
}

// indented is a JSON text with a line for each member.
func indented(text []byte) []byte {
	var b bytes.Buffer
	if json.Indent(&b, text, "", "  ") != nil {
		return text // not JSON
	}
	return b.Bytes()
}
