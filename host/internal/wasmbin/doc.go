// Package wasmbin reads WebAssembly binaries that nobody vouches for. [Parse] is
// total: it returns the module's parts as ranges of the input, or an [Error]
// with the offset and the section where the format is broken. No allocation is
// sized by a count that the bytes behind it do not bear out, and the counts that
// make a compiler slow are bounded by [Limits].
//
// The package knows the structure, not the typing rules: a module that parses
// may still fail validation by the engine that compiles it. What it understands
// of the instruction set is WebAssembly 2.0, with tail calls and extended constant
// expressions, without threads, exceptions, garbage collection, 64-bit or several
// memories and relaxed vector instructions; what lies beyond is named in the
// error, never skipped.
//
// A [Writer] puts a module together again from sections, changed or not, which
// is what rewriting needs. The package uses nothing but the standard library
// and is safe for concurrent use: a parsed module is never changed.
package wasmbin
