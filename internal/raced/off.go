//go:build !race

package raced

// Enabled reports whether the race detector watches this run.
const Enabled = false
