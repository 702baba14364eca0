//go:build !linux

package fair

// ThreadTime is not known on this system; the clock is used.
func ThreadTime() int64 { return Untold }
