// Package api defines what host and clients exchange: the JSON of the HTTP and WebSocket protocols, the
// headers, and the document that describes them. Gateway and client share it, so that they cannot diverge. It
// has no goroutines and does no I/O.
package api
