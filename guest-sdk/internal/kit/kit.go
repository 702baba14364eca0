// Package kit is how test kits reach into a service that runs natively. It keeps these
// hooks out of the API that authors of services see, and out of modules.
package kit

import "github.com/bulkhead-wasm/bulkhead/abi"

// Guest is a service as a test kit sees it. It is for one goroutine at a time.
type Guest interface {
	// Exchange runs the request frames in request, as the module's export does, and returns
	// the response frames. They are valid until the next call.
	Exchange(request []byte) (response []byte)
	// EventNumber returns the type number in the manifest of an event; ok is false if its
	// type is not registered.
	EventNumber(event any) (number uint16, ok bool)
}

// Of returns the hooks of a service, which must be a *guest.Service. Package guest sets it
// when it is initialised; it is nil in a module.
var Of func(service any) Guest

// Log, if not nil, gets the log lines of all services that run natively. Set it before any
// service runs.
var Log func(level abi.LogLevel, text string)
