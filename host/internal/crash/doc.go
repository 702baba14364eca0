// Package crash kills the real program and compares its data with what it told its clients.
//
// One round starts `bulkhead serve` as a child process on a directory and puts load on it through
// HTTP and WebSocket, from many clients that choose their own command ids. It kills the process
// with SIGKILL at a random moment, starts it again on the same directory, and compares the log with
// the [ledger] of the clients:
//
//   - every acknowledged command is in the log exactly once, with the version and
//     position that its client was told;
//   - no refused command is in the log;
//   - every other command is there at most once, and exactly once after it has been
//     sent again under its id;
//   - positions have no gaps in the log, and versions have none in each entity;
//   - a subscriber that resumes from its last cursor has seen every event once;
//   - `bulkhead journal verify` finds nothing.
//
// All random choices come from one seed, which is printed: `make crash SEED=n` repeats the choices,
// but not the exact moments.
package crash
