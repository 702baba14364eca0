//go:build !linux

package kernels

import "time"

var begun = time.Now()

// threadTime is the time on the wall, for want of a clock of the thread's own.
func threadTime() time.Duration { return time.Since(begun) }
