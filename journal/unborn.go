package journal

import (
	"crypto/sha256"
)

// Unborn is what [commitlog.Journal.Origin] is of a log that has no batch yet.
func Unborn(log LogName) Stamp {
	sum := sha256.Sum256([]byte(log))
	return Stamp(sum[:8])
}
