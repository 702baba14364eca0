// Package crash kills the real program and holds it to what it told its clients.
//
// A round starts `bulkhead serve` as a child on a directory, puts load on it
// through HTTP and WebSocket from many clients that choose their own command ids,
// kills it with SIGKILL at a random moment, starts it again on the same
// directory, and compares the log with the [ledger] that the clients kept:
//
//   - every acknowledged command is in the log exactly once, with the version and
//     position its client was told;
//   - every command that was refused is not in the log;
//   - every other one is there at most once, and after it has been sent again
//     under its id, exactly once;
//   - positions are dense in the log, versions dense in each entity;
//   - a subscriber that goes on from its last cursor has seen every event once;
//   - `bulkhead journal verify` finds nothing.
//
// Everything random comes from one seed, which is printed: `make crash SEED=n`
// repeats the choices, though not the exact moments.
package crash
