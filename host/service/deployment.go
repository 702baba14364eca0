package service

import "time"

// Deployment says which module shall run under which name.
type Deployment struct {
	Service Name
	// Module is the module's bytes. Empty means the stored module with Digest.
	Module []byte
	// Digest names a module that the host has stored. Not used with Module.
	Digest Digest
	// Limits and Settings of the service. Zero fields are the host's own.
	Limits   Limits
	Settings Settings
	// Verify says how the module is verified against the service's log. Zero fields are the host's own.
	Verify Verify
	// Progress, if not nil, hears how the deployment goes on, one call at a time, until
	// the deployment returns. It must not block for long.
	Progress func(Progress)
}

// DeploymentEntry is a deployment in a service's history.
type DeploymentEntry struct {
	// Number names the entry within the service's history. Numbers grow, with gaps, and never change.
	Number Version   `json:"number"`
	Time   time.Time `json:"time"` // when it was recorded
	Spec
	ModuleVersion string `json:"version,omitempty"`      // that the module's author gave it, if known
	StateSchema   uint32 `json:"state_schema,omitempty"` // of its snapshots; 0: none, or unknown
	// Verification is what the verification of the module has shown; nil if it was recorded without one.
	Verification *Verification `json:"verification,omitempty"`
	// Stopped is when the service was stopped, if that ended this deployment. Otherwise the next one did.
	Stopped time.Time `json:"stopped,omitzero"`
	Current bool      `json:"current"` // the service runs it
	Stored  bool      `json:"stored"`  // the host still has the module, so the service can be rolled back to it
}

// DeploymentPage is a part of a service's history, the newest deployment first.
type DeploymentPage struct {
	Deployments []DeploymentEntry `json:"deployments"`
	// Before is the number before which the next page begins; 0: this is the end of the history.
	Before Version `json:"before,omitempty"`
}

// Rollback says which earlier deployment of a service to deploy again.
type Rollback struct {
	Service Name
	// To is the number of the deployment. 0 means the newest one with another module, or other limits or
	// settings, than the last one. So rolling back twice restores what was there.
	To       Version
	Verify   Verify         // as in [Deployment]
	Progress func(Progress) // as in [Deployment]
}

// Progress says how far something long has come: a deployment, an upload, a retention, a
// backup or a restore.
type Progress struct {
	// Stage names what is being done. Those of a deployment are verifying, rewriting,
	// compiling, initialising, describing, replaying, re-executing, storing, draining and ready, in this order. An
	// upload ends with storing. A client that sends a module reports uploading before
	// these, in bytes.
	Stage string `json:"stage"`
	Done  int64  `json:"done"`  // of Total
	Total int64  `json:"total"` // in units of the stage; 0 if unknown
}
