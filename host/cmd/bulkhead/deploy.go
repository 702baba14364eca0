package main

import (
	"fmt"
	"io"
	"os"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/client"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// deployCmd uploads a module and makes it a service.
type deployCmd struct {
	Module  string     `arg:"" type:"existingfile" help:"The module, a .wasm file."`
	Service nameArg    `env:"-" placeholder:"NAME" help:"The service's name. Default: what the module calls itself."`
	Shards  int        `placeholder:"N" help:"How many sandboxes share the service's keys. Default 2."`
	NoData  bool       `name:"omit-command-data" help:"Keep the data of commands out of the journal."`
	Limits  limitFlags `embed:"" prefix:"limit-" group:"Limits of the service"`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *deployCmd) Run(e *env) error {
	module, err := os.ReadFile(c.Module)
	if err != nil {
		return err
	}
	host, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	bar := e.progress()
	defer bar.done()
	arrived := false
	sent := func(done, total int64) {
		if arrived {
			return
		}
		bar.at("uploading "+relative(c.Module), done, total, bytesUnit)
		if arrived = done == total; arrived {
			bar.at("verifying and compiling", 0, 0, bytesUnit)
		}
	}
	d := client.Deployment{
		Service: service.Name(c.Service), Module: module, Limits: c.Limits.limits(), Sent: sent,
		Settings: service.Settings{Shards: c.Shards, OmitCommandData: c.NoData},
		Progress: func(p api.Progress) { bar.at(p.Stage, p.Done, p.Total, countUnit) },
	}
	if c.Service == "" {
		m, err := host.Upload(e.ctx, module, sent)
		if err != nil {
			return err
		}
		d.Service, d.Module, d.Digest = service.Name(m.Manifest.Service), nil, m.Digest
	}
	s, err := host.Deploy(e.ctx, d)
	if err != nil {
		return err
	}
	bar.done()
	e.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s runs %s with %d shards, at position %d\n", s.Spec.Service, s.Spec.Module, len(s.Shards), s.Head)
	})
	return nil
}
