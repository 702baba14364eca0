package main

import (
	"fmt"
	"io"
	"os"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// deployCmd uploads a module and makes it the service that the module says it is.
type deployCmd struct {
	Module  string     `arg:"" type:"existingfile" help:"The module, a .wasm file."`
	Shards  int        `placeholder:"N" help:"How many sandboxes share the service's keys. Default 2."`
	NoData  bool       `name:"omit-command-data" help:"Keep the data of commands out of the journal."`
	Every   int        `name:"snapshot-every" placeholder:"N" help:"After how many events of an entity to keep its state, so that they need not be replayed; -1 keeps none. Default ${snapshot_every}."`
	KeepNaN bool       `name:"keep-nan" help:"Leave the bits of a NaN as the processor makes them: faster float arithmetic, but machines of different kinds may differ."`
	Limits  limitFlags `embed:"" prefix:"limit-" group:"Limits of the service"`

	Remote remoteFlags `embed:"" group:"Host"`
}

func (c *deployCmd) Run(e *env) error {
	module, err := os.ReadFile(c.Module)
	if err != nil {
		return err
	}
	cl, err := c.Remote.connect(e)
	if err != nil {
		return err
	}
	bar := e.progress()
	defer bar.done()
	stages := map[string]bool{}
	arrived := false // what is said about sending after that would be out of turn
	m, err := cl.Upload(e.ctx, module, func(p service.Progress) {
		stages[p.Stage] = true
		if p.Stage == "uploading" {
			if !arrived {
				bar.at("uploading "+relative(c.Module), p.Done, p.Total, bytesUnit)
			}
			arrived = p.Done == p.Total
			return
		}
		bar.at(p.Stage, p.Done, p.Total, bytesUnit)
	})
	if err != nil {
		return err
	}
	s, err := cl.Deploy(e.ctx, service.Deployment{
		Service: service.Name(m.Manifest.Service), Digest: m.Digest, Limits: c.Limits.limits(),
		Settings: service.Settings{Shards: c.Shards, OmitCommandData: c.NoData, SnapshotEvery: c.Every, KeepNaN: c.KeepNaN},
		Progress: func(p service.Progress) {
			if stages[p.Stage] { // it goes through them once more, with what the upload has left
				bar.at("starting "+m.Manifest.Service, 0, 0, countUnit)
				return
			}
			bar.at(p.Stage, p.Done, p.Total, countUnit)
		},
	})
	if err != nil {
		return err
	}
	bar.done()
	if !e.json { // which has them in what it prints
		e.warn(s.Warnings...)
	}
	e.print(api.ServiceOf(s), func(w io.Writer) {
		fmt.Fprintf(w, "%s runs %s with %d shards, at position %d\n", safetext.Text(string(s.Spec.Service)), s.Spec.Module, len(s.Shards), s.Head)
	})
	return nil
}
