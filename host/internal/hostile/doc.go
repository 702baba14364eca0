// Package hostile tests the first promise of the real program: no module and no client can slow its
// neighbours down or end the host.
//
// A neighbour is a small well-behaved service with an open-loop client. Its commands are due at
// fixed times, and the latency of a command counts from its due time, so a stall counts for all
// commands that it delayed. In one run, the neighbour is measured alone, and then beside one kind
// of hostile guest or client, or beside all of them at once in a host with little memory, few
// descriptors and a small disk.
package hostile
