package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// modulesCmd lists or deletes the modules on a host's disk.
type modulesCmd struct {
	List   modulesListCmd   `cmd:"" default:"1" help:"List the stored modules and the services that refer to them."`
	Delete modulesDeleteCmd `cmd:"" help:"Delete a stored module that no service runs, and none ran before its current one."`

	Remote remoteFlags `embed:"" group:"Host"`
}

type modulesListCmd struct{}

func (*modulesListCmd) Run(e *env, all *modulesCmd) error {
	cl, err := all.Remote.connect(e)
	if err != nil {
		return err
	}
	m, err := cl.Modules(e.ctx)
	if err != nil {
		return err
	}
	e.print(m, func(w io.Writer) { printModules(w, &m) })
	return nil
}

func printModules(w io.Writer, m *service.Modules) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODULE\tSIZE\tCODE\tSINCE\tREFERRED TO BY")
	for _, s := range m.Modules {
		by := ""
		for _, name := range s.Services {
			by += string(name) + " "
		}
		for _, name := range s.Earlier {
			by += string(name) + " (before) "
		}
		if by == "" && m.Keep < 0 {
			by = "nothing"
		} else if by == "" {
			by = "nothing; removed after " + s.Since.Add(m.Keep).Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.Digest, bytesUnit(s.Size), bytesUnit(s.CodeBytes),
			s.Since.Format(time.RFC3339), by)
	}
	table.Flush()
	limit := "no limit"
	if m.Limit > 0 {
		limit = bytesUnit(m.Limit)
	}
	fmt.Fprintf(w, "modules use %s of %s; machine code without a module uses %s\n", bytesUnit(m.Bytes), limit,
		bytesUnit(m.OtherCodeBytes))
}

type modulesDeleteCmd struct {
	Digest service.Digest `arg:"" help:"Digest of the module: sha256: and 64 hexadecimal digits."`
}

func (c *modulesDeleteCmd) Run(e *env, all *modulesCmd) error {
	cl, err := all.Remote.connect(e)
	if err != nil {
		return err
	}
	if err := cl.DeleteModule(e.ctx, c.Digest); err != nil {
		return err
	}
	e.print(map[string]any{"deleted": c.Digest}, func(w io.Writer) { fmt.Fprintf(w, "%s is deleted\n", c.Digest) })
	return nil
}
