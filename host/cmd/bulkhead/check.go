package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// verifyFlags say how a module is verified before it takes over.
type verifyFlags struct {
	Verify  string        `enum:",all,sample,none" default:"" placeholder:"MODE" help:"Entities of the log that the new module replays before it takes over: all, a sample that has every type of event, or none. Default: as the host is set, which is sample unless serve --verify says otherwise."`
	Timeout time.Duration `name:"verify-timeout" placeholder:"DURATION" help:"Maximum time of the verification. If the entities that must be replayed were not replayed by then, the module is refused. Default: a minute, and an hour with --verify all."`
	Same    bool          `name:"require-same" help:"Refuse the module if it decides a recorded command otherwise than it was decided, or makes another state of the same events."`
}

func (f *verifyFlags) verify() service.Verify {
	return service.Verify{Mode: service.VerifyMode(f.Verify), Timeout: f.Timeout, RequireSame: f.Same}
}

// checkCmd says whether a module would be deployed, without deploying it.
type checkCmd struct {
	Module  string      `arg:"" type:"existingfile" help:"The module, a .wasm file."`
	Against nameArg     `placeholder:"SERVICE" help:"Verify the module against the log of this service of the host, as a deployment would. Nothing is deployed or stored. Without it, the module is only checked against the rules for modules, without a host."`
	Verify  verifyFlags `embed:"" group:"Verification"`
	Limits  limitFlags  `embed:"" prefix:"limit-" group:"Limits of the service"`

	Remote remoteFlags `embed:"" group:"Host"`
}

// checked is what check prints with --json.
type checked struct {
	Accepted     bool                  `json:"accepted"`
	Problems     []string              `json:"problems,omitempty"`
	Verification *service.Verification `json:"verification,omitempty"`
}

func (c *checkCmd) Run(e *env) error {
	module, err := os.ReadFile(c.Module)
	if err != nil {
		return err
	}
	bar := e.progress()
	defer bar.done()
	out := checked{}
	if c.Against == "" {
		out.Problems, err = c.locally(e, module, bar)
	} else {
		err = c.remotely(e, module, bar, &out)
	}
	bar.done()
	if err != nil {
		return err
	}
	out.Accepted = len(out.Problems) == 0
	e.print(out, func(w io.Writer) {
		if v := out.Verification; v != nil {
			printVerified(w, v)
		}
		for _, p := range out.Problems {
			fmt.Fprintln(w, safetext.Text(p))
		}
		if out.Accepted {
			fmt.Fprintf(w, "%s would be accepted\n", safetext.Text(relative(c.Module)))
		}
	})
	if !out.Accepted {
		return checkError{fmt.Sprintf("%s would be refused", relative(c.Module))}
	}
	return nil
}

// locally checks a module against the rules that need no host.
func (c *checkCmd) locally(e *env, module []byte, bar *progress) ([]string, error) {
	compiler, err := compiler()
	if err != nil {
		return nil, err
	}
	i, err := host.Inspect(e.ctx, module, host.InspectOptions{
		Limits: c.Limits.limits(), Compiler: compiler,
		Progress: func(p service.Progress) { bar.at(p.Stage, p.Done, p.Total, bytesUnit) },
	})
	if err != nil {
		return nil, err
	}
	return i.Problems, nil
}

// remotely verifies a module against the log of a service.
func (c *checkCmd) remotely(e *env, module []byte, bar *progress, out *checked) error {
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	v, err := cl.Verify(e.ctx, service.Deployment{Service: service.Name(c.Against), Module: module,
		Limits: c.Limits.limits(), Verify: c.Verify.verify(),
		Progress: func(p service.Progress) { bar.at(p.Stage, p.Done, p.Total, stageUnit(p.Stage)) },
	})
	var refused *service.Error
	switch {
	case err == nil:
		out.Verification = &v
	case errors.As(err, &refused) && (refused.Kind == service.KindConflicting || refused.Kind == service.KindBadModule):
		out.Problems = append([]string{refused.Message}, refused.Reasons...)
	default:
		return err
	}
	return nil
}

// stageUnit is the unit of a stage's progress.
func stageUnit(stage string) func(int64) string {
	if stage == "uploading" {
		return bytesUnit
	}
	return countUnit
}

// printVerified shows what a verification has found.
func printVerified(w io.Writer, v *service.Verification) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, safetext.Text(fmt.Sprintf(format, args...)))
	}
	if v.Mode == service.VerifyNone {
		row("verified", "nothing")
		t.Flush()
		return
	}
	row("replayed", "%d entities with %d events (%s), in %s", v.Entities, v.Events, v.Mode,
		v.Took.Round(time.Millisecond))
	if v.Unfinished {
		row("unfinished", "the time was over before the budgets were spent; see --verify-timeout")
	}
	row("event types", "%d in the log", v.OfTypes)
	if v.Unreadable > 0 {
		row("unreadable", "%d entities, with either module; the first: %s", v.Unreadable, v.FirstUnreadable)
	}
	row("states", "%d the same, %d different", v.States.Same, v.States.Different)
	row("commands", "%d decided the same, %d different, %d not run again", v.Commands.Same, v.Commands.Different,
		v.Commands.NotRun)
	t.Flush()
	for i := range v.States.First {
		d := &v.States.First[i]
		fmt.Fprintf(w, "entity %s at version %d\n  running  %s\n  new      %s\n", safetext.Text(string(d.Key)),
			d.Version, safetext.Text(string(d.Before)), safetext.Text(string(d.After)))
	}
	for i := range v.Commands.First {
		d := &v.Commands.First[i]
		fmt.Fprintf(w, "command %s %s of entity %s at version %d, position %d\n  recorded  %s\n  new       %s\n",
			safetext.Text(string(d.Type)), safetext.Text(string(d.Data)), safetext.Text(string(d.Key)), d.Version,
			d.Position, safetext.Text(d.Before.String()), safetext.Text(d.After.String()))
	}
}
