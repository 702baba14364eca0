package service

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
	// Progress, if not nil, hears how the deployment goes on, one call at a time, until
	// the deployment returns. It must not block for long.
	Progress func(Progress)
}

// Progress says how far something long has come: a deployment, an upload, a retention, a
// backup or a restore.
type Progress struct {
	// Stage names what is being done. Those of a deployment are verifying, rewriting,
	// compiling, initialising, describing, storing, draining and ready, in this order. An
	// upload ends with storing. A client that sends a module reports uploading before
	// these, in bytes.
	Stage string `json:"stage"`
	Done  int64  `json:"done"`  // of Total
	Total int64  `json:"total"` // in units of the stage; 0 if unknown
}
