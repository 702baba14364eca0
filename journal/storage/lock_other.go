//go:build !unix

package storage

import "os"

// lockDir has nothing to lock a directory with here; Badger's own locks remain.
func lockDir(dir string, _ bool) (*os.File, error) { return os.Open(dir) }
