//go:build !unix

package host

// descriptorLimit is unknown on this system.
func descriptorLimit() int64 { return 0 }
