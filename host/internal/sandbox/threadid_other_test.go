//go:build !linux

package sandbox

// threadID is not known on this system, as its time is not.
func threadID() int { return 0 }
