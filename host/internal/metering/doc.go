// Package metering rewrites a WebAssembly module so that it counts what it
// executes and how deep its calls are, and so that a host can take its state out
// and put it back. Bytes in, bytes out: the package knows no runtime.
//
// [Rewrite] adds to a module
//
//   - two mutable globals, [ExportFuel] and [ExportStack], that the host sets
//     before a call and reads after it;
//   - two imports, [ImportRefuel] and [ImportOverflow], that the code calls when
//     one of the globals is negative;
//   - a function, [ExportSetup], for what else would run while the module is
//     instantiated: active data segments and the start function. So one binary
//     serves instances that start from nothing and instances that start from an
//     image of the memory and never call it;
//   - a function for each bulk instruction of memory or a table, that does it in
//     steps with a check in front of each;
//   - an immutable global for each function whose reference the code takes;
//   - an export for each mutable global of the module's own.
//
// What all this costs the guest is written down in TARIFF.md, beside this file, with
// its version, [TariffVersion]. Fuel is a function of the code that runs: the same
// on every machine, in every engine, and however it was granted.
//
// # Why a guest cannot reach its meter
//
// Functions, globals and locals of the meter have indexes behind those of the
// module or between its imports and its own functions. Each index in the module's
// code, segments and exports is checked against the module as it was before
// anything is added, and then shifted; so none of them can come to mean something
// that was added. Names are checked likewise: a module that imports or exports
// anything that starts with [ReservedPrefix] is refused. A 64-bit counter that
// starts below 2^62 cannot overflow between two checks, as the largest charge is
// less than 2^47.
package metering
