package service

import "sync/atomic"

// Claim decides, once, whether a request that waits is carried out or refused. While
// it waits, for a mailbox or for a service that starts, several may want to end it:
// the shard that comes to it, a timer, its sender. Whoever takes the claim answers,
// and nobody else does. The zero value is free; a nil Claim is always free to begin
// and never to refuse. It may be used concurrently.
type Claim struct{ state atomic.Int32 }

const (
	claimFree int32 = iota
	claimBegun
	claimRefused
)

// Begin takes the claim to carry the request out. false means that it was refused.
func (c *Claim) Begin() bool { return c == nil || c.state.CompareAndSwap(claimFree, claimBegun) }

// Refuse takes the claim to refuse the request. false means that it has begun, or
// that somebody else has refused it. After true the request will not be carried out.
func (c *Claim) Refuse() bool { return c != nil && c.state.CompareAndSwap(claimFree, claimRefused) }

// Refused reports whether the request was refused.
func (c *Claim) Refused() bool { return c != nil && c.state.Load() == claimRefused }
