// Package compartment does one piece of work on untrusted input in a child process. The child's memory,
// processor time and wall time are bounded. It has a low priority, no environment, and no open files
// except its three pipes, and it dies with its parent. A failure in it costs the parent nothing but an
// [Error] that says which bound was hit.
//
// The parent calls [Run] with a command that leads to [Serve] in the child, usually a hidden subcommand
// of the parent's own program. The child reads its input from standard input and writes small messages
// to standard output. Large results are files whose names parent and child have agreed on.
//
// The child sets its bounds itself, before it reads its input. On Unix systems the kernel enforces them,
// and on all systems the child watches itself. The bounds hold against input that makes honest code
// use too much. They do not hold against code that an attacker has taken over.
package compartment
