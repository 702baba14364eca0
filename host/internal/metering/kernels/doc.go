// Package kernels measures what metering costs: real work in guests compiled from Go and C. It runs
// them unchanged, rewritten, and with wazero's own way of stopping a guest, in turns in one run.
// go test -bench . prints the ratios.
//
// Production code does not import it.
package kernels
