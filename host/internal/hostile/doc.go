// Package hostile holds the real program to its first promise: no module, and no
// client, slows its neighbours or ends the host.
//
// A neighbour is a small well-behaved service with an open-loop client: its commands
// are due at fixed times, and a command's latency counts from when it was due, so a
// stall counts for all that it held up. It is measured alone and then beside one
// kind of hostile guest or client, in one run; or beside all of them at once, in a
// host with little memory, few descriptors and a small disk.
package hostile
