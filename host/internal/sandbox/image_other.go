//go:build !linux

package sandbox

import "errors"

// newArena has nothing to offer here; memories are copied.
func newArena() (backing, error) {
	return nil, errors.New("this system cannot map images")
}
