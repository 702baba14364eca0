// Package wasmbin reads untrusted WebAssembly binaries. [Parse] is total: it returns the module's
// parts as ranges of the input, or an [Error] with the offset and the section where the format is
// broken. No allocation is larger than the remaining input justifies, whatever a count says. The
// numbers that make a compiler slow are bounded by [Limits].
//
// The package knows the structure of a module, not the typing rules: a module that parses may still
// fail validation by the engine that compiles it. It knows the instructions of WebAssembly 2.0, with
// tail calls and extended constant expressions. It does not know threads, exceptions, garbage
// collection, 64-bit or multiple memories, and relaxed vector instructions: an error names what it
// does not know; nothing is skipped.
//
// A [Writer] builds a module from sections, changed or not, as rewriting needs it. The package uses
// only the standard library. It is safe for concurrent use: a parsed module is never changed.
package wasmbin
