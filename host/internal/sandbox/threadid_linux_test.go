package sandbox

import "syscall"

// threadID is the calling thread's.
func threadID() int { return syscall.Gettid() }
