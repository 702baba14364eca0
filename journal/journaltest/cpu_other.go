//go:build !unix

package journaltest

import "time"

// CPUTime is not known here.
func CPUTime() time.Duration { return 0 }
