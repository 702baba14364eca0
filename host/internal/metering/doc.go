// Package metering rewrites a WebAssembly module so that it counts what it executes and how deep
// its calls are, and so that a host can save and restore its state. Its input and output are bytes;
// it does not depend on a runtime.
//
// [Rewrite] adds to a module:
//
//   - two mutable globals, [ExportFuel] and [ExportStack], which the host sets before a call and
//     reads after it;
//   - two imports, [ImportRefuel] and [ImportOverflow], which the code calls when one of the globals
//     is negative;
//   - a function, [ExportSetup], with what would otherwise run during instantiation: active data
//     segments and the start function. So one binary serves new instances, which call it, and
//     instances that are restored from an image of memory, which do not;
//   - for each bulk instruction of memory or a table, a function that does it in steps, with a check
//     before each step;
//   - for each function whose reference the code takes, an immutable global;
//   - for each mutable global of the module, an export.
//
// TARIFF.md in this directory says what a guest is charged. Its version is [TariffVersion]. Fuel
// depends only on the code that runs: it is the same on every machine, in every engine, and however
// it is granted.
//
// # Why a guest cannot reach its meter
//
// The meter's functions, globals and locals have indexes after those of the module, or between its
// imports and its own functions. Each index in the module's code, segments and exports is first
// checked against the original module, and then shifted. So no index can come to refer to something
// that was added. Names are checked too: a module that imports or exports a name that starts with
// [ReservedPrefix] is refused. A 64-bit counter that starts below 2^62 cannot overflow between two
// checks, as the largest charge is less than 2^47.
package metering
