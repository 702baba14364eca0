package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// deploymentsCmd shows the history of a service.
type deploymentsCmd struct {
	Service nameArg `arg:"" help:"The service."`
	Before  uint64  `placeholder:"N" help:"Show only deployments with a lower number. Default: the newest ones."`
	Limit   int     `default:"20" placeholder:"N" help:"Maximum number of deployments, 1 to 1000. Default ${default}."`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *deploymentsCmd) Run(e *env) error {
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	if c.Limit < 1 {
		return usageError{fmt.Errorf("--limit is %d; it may be 1 to 1000", c.Limit)}
	}
	page, err := cl.Deployments(e.ctx, service.Name(c.Service), service.Version(c.Before), c.Limit)
	if err != nil {
		return err
	}
	e.print(page, func(w io.Writer) { printDeployments(w, &page) })
	return nil
}

func printDeployments(w io.Writer, page *service.DeploymentPage) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NUMBER\tTIME\tMODULE\tVERSION\tSHARDS\tMEMORY\tVERIFIED\tSTATE")
	for i := range page.Deployments {
		d := &page.Deployments[i]
		limits := d.Limits.WithDefaults()
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", d.Number, d.Time.Format(time.RFC3339),
			shortDigest(d.Module), safetext.Text(cmp.Or(d.ModuleVersion, "-")), d.Settings.WithDefaults().Shards,
			size(limits.MemoryBytes), verifiedText(d.Verification), deploymentState(d))
	}
	table.Flush()
	if page.Before > 0 {
		fmt.Fprintf(w, "there are earlier deployments: --before %d\n", page.Before)
	}
}

// deploymentState says what has become of a deployment.
func deploymentState(d *service.DeploymentEntry) string {
	state := "replaced"
	switch {
	case d.Current:
		state = "current"
	case !d.Stopped.IsZero():
		state = "stopped at " + d.Stopped.Format(time.RFC3339)
	}
	if !d.Stored {
		state += "; its module is no longer stored"
	}
	return state
}

// verifiedText says in a few words what a verification has shown.
func verifiedText(v *service.Verification) string {
	switch {
	case v != nil && v.Mode == service.VerifyNone:
		return "none"
	case v == nil || v.Entities == 0: // the log had none
		return "-"
	}
	text := fmt.Sprintf("%d entities", v.Entities)
	if v.Mode == service.VerifyAll {
		text = fmt.Sprintf("all %d entities", v.Entities)
	}
	if n := v.Commands.Same + v.Commands.Different; n > 0 {
		text += fmt.Sprintf(", %d of %d commands the same", v.Commands.Same, n)
	}
	if v.States.Different > 0 {
		text += fmt.Sprintf(", %d states differ", v.States.Different)
	}
	return text
}

// rollbackCmd deploys an earlier deployment again.
type rollbackCmd struct {
	Service nameArg `arg:"" help:"The service."`
	To      uint64  `placeholder:"N" help:"Number of the deployment, as the command deployments shows it. Default: the newest one with another module, or other limits or settings, than the last one."`

	Verify verifyFlags `embed:"" group:"Verification"`
	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *rollbackCmd) Run(e *env) error {
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	bar := e.progress()
	defer bar.done()
	s, err := cl.Rollback(e.ctx, service.Rollback{
		Service: service.Name(c.Service), To: service.Version(c.To), Verify: c.Verify.verify(),
		Progress: func(p service.Progress) { bar.at(p.Stage, p.Done, p.Total, countUnit) },
	})
	if err != nil {
		return err
	}
	bar.done()
	printDeployed(e, &s)
	return nil
}

// printDeployed shows the service that a deployment has made.
func printDeployed(e *env, s *service.Status) {
	if !e.json { // the JSON contains them
		e.warn(s.Warnings...)
	}
	e.print(api.ServiceOf(*s), func(w io.Writer) {
		fmt.Fprintf(w, "%s runs %s with %d shards, at position %d\n", safetext.Text(string(s.Spec.Service)),
			s.Spec.Module, len(s.Shards), s.Head)
		if v := s.Verification; v != nil && v.Mode != service.VerifyNone && v.Entities > 0 {
			fmt.Fprintf(w, "verified: %s\n", verifiedText(v))
		}
	})
}
