// Package raced tells tests whether the race detector watches them.
package raced

import "testing"

// Skip leaves a test to the run without the race detector, for a reason such as that
// it has one goroutine, measures time, or runs other processes only.
func Skip(t testing.TB, why string) {
	t.Helper()
	if Enabled {
		t.Skip("not with the race detector: " + why)
	}
}
