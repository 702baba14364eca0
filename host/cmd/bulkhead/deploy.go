package main

import (
	"os"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// deployCmd uploads a module and deploys it as the service that its manifest names.
type deployCmd struct {
	Module  string     `arg:"" type:"existingfile" help:"The module, a .wasm file."`
	Shards  int        `placeholder:"N" help:"Number of shards that the service's keys are divided among; each has a sandbox. Default 2."`
	NoData  bool       `name:"omit-command-data" help:"Do not record the data of commands in the journal."`
	Every   int        `name:"snapshot-every" placeholder:"N" help:"Take a snapshot of an entity after this number of events. -1 takes none. Default ${snapshot_every}."`
	KeepNaN bool       `name:"keep-nan" help:"Keep the bits of NaN values as the processor makes them. Float arithmetic is faster, but results may differ between kinds of machines."`
	Limits  limitFlags `embed:"" prefix:"limit-" group:"Limits of the service"`

	Verify verifyFlags `embed:"" group:"Verification"`
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
	arrived := false // later reports of sending would be out of order
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
		Settings: service.Settings{Shards: c.Shards, OmitCommandData: c.NoData, SnapshotEvery: c.Every,
			KeepNaN: c.KeepNaN},
		Verify: c.Verify.verify(),
		Progress: func(p service.Progress) {
			if stages[p.Stage] { // the deployment repeats stages of the upload, mostly from stored results
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
	printDeployed(e, &s)
	return nil
}
