// Package compartment does one piece of work on untrusted input in a child
// process that has little to lose: its memory, CPU time and wall time are bounded,
// it has a low priority, no environment and no files open but its three pipes, and
// it dies with its parent. What goes wrong in it costs the parent nothing but an
// [Error] that says which bound was hit.
//
// The parent calls [Run] with a command that leads to [Serve] in the child,
// usually a hidden subcommand of the parent's own program. The input goes in at
// standard input, small messages come out at standard output, and large results
// are files that parent and child have agreed on.
//
// The bounds are the child's own doing, set before it reads its input; on Unix
// systems the kernel keeps them, and everywhere the child watches itself. They
// hold against input that makes honest code take too much. They are no jail for
// code that an attacker has taken over.
package compartment
