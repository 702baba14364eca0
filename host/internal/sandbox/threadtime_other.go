//go:build !linux

package sandbox

// threadTime is not known on this system: the clock has to do.
func threadTime() int64 { return untold }
