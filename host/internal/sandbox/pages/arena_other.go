//go:build !linux

package pages

import "errors"

// Arena is the backing for systems that can map images. This one cannot.
type Arena struct{ Copying }

// NewArena has nothing to offer here; memories are copied.
func NewArena() (*Arena, error) { return nil, errors.New("this system cannot map images") }
