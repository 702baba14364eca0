package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
)

// resourcesCmd shows the host's budget.
type resourcesCmd struct {
	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *resourcesCmd) Run(e *env) error {
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	all, err := cl.Resources(e.ctx)
	if err != nil {
		return err
	}
	e.print(api.Resources{Resources: all}, func(w io.Writer) {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "RESOURCE\tUSED\tLIMIT\tREFUSED\tMOST IS HELD BY")
		for _, r := range all {
			limit := "none"
			if r.Limit > 0 {
				limit = amount(r.Resource, r.Limit)
			}
			var holders []string
			for _, h := range r.Holders {
				holders = append(holders, fmt.Sprintf("%s (%s)", h.Name, amount(r.Resource, h.Used)))
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", r.Resource, amount(r.Resource, r.Used), limit, r.Refused,
				strings.Join(holders, ", "))
		}
		table.Flush()
	})
	return nil
}

// amount formats an amount of a resource for people.
func amount(resource string, n int64) string {
	if strings.Contains(resource, "bytes") {
		return bytesUnit(n)
	}
	return fmt.Sprint(n)
}
