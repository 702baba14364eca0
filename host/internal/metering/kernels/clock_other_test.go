//go:build !linux

package kernels

import "time"

var begun = time.Now()

// threadTime is wall-clock time, as there is no clock of the thread here.
func threadTime() time.Duration { return time.Since(begun) }
