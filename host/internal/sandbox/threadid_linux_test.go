package sandbox

import "golang.org/x/sys/unix"

// threadID is the calling thread's.
func threadID() int { return unix.Gettid() }
