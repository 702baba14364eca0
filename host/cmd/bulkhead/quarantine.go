package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// quarantineCmd lists the entities that a module cannot hydrate.
type quarantineCmd struct {
	Service nameArg `arg:"" help:"The service."`
	After   string  `placeholder:"KEY" help:"Show only entities after this key. Default: from the first one."`
	Limit   int     `default:"100" placeholder:"N" help:"Maximum number of entities, 1 to 1000. Default ${default}."`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *quarantineCmd) Run(e *env) error {
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	if c.Limit < 1 {
		return usageError{fmt.Errorf("--limit is %d; it may be 1 to 1000", c.Limit)}
	}
	page, err := cl.Quarantine(e.ctx, service.Name(c.Service), service.Key(c.After), c.Limit)
	if err != nil {
		return err
	}
	e.print(page, func(w io.Writer) { printQuarantine(w, &page) })
	return nil
}

func printQuarantine(w io.Writer, page *service.QuarantinePage) {
	if page.Count == 0 {
		fmt.Fprintln(w, "no entity is quarantined")
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tVERSION\tEVENT\tPOSITION\tSINCE\tATTEMPTS\tNEXT ATTEMPT\tPROBLEM")
	for i := range page.Entities {
		x := &page.Entities[i]
		fmt.Fprintf(table, "%s\t%d\t%s\t%d\t%s\t%d\t%s\t%s\n", safetext.Text(string(x.Key)), x.Version,
			safetext.Text(cmp.Or(string(x.Event), "-")), x.Position, x.Since.Format(time.RFC3339), x.Failed,
			x.NextAttempt.Format(time.RFC3339), safetext.Text(x.Problem))
	}
	table.Flush()
	if page.After != "" {
		fmt.Fprintf(w, "%d entities are quarantined; there are more after the key %s\n", page.Count,
			safetext.Text(string(page.After)))
	}
}

// releaseCmd makes the host try at once to hydrate an entity.
type releaseCmd struct {
	Entity entityArg `arg:"" placeholder:"SERVICE/KEY" help:"The entity, such as bank/alice."`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *releaseCmd) Run(e *env) error {
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	r, err := cl.Release(e.ctx, c.Entity.service, c.Entity.key)
	if err != nil {
		return err
	}
	e.print(r, func(w io.Writer) {
		name := safetext.Text(string(c.Entity.service) + "/" + string(c.Entity.key))
		if !r.Quarantined {
			fmt.Fprintf(w, "%s was not quarantined; the module can apply its events\n", name)
			return
		}
		fmt.Fprintf(w, "%s is released; the module can apply its events\n", name)
	})
	return nil
}
