// Package api is what goes over the wire between a host and its clients: the
// JSON of the HTTP and WebSocket protocols, the headers, and the document that
// describes them. Gateway and client share it, so that they cannot drift apart.
// It has no goroutine and does no I/O.
package api
