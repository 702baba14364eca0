package service

import "sync"

// Claim decides, once, whether a request that waits is carried out or refused. While
// it waits, for a mailbox or for a service that starts, several may want to end it:
// the shard that comes to it, a timer, its sender. Whoever takes the claim answers,
// and nobody else does. The zero value is free; a nil Claim is always free to begin
// and never to refuse. It may be used concurrently.
type Claim struct {
	mu    sync.Mutex // guards all below
	state claimState
	held  Dropper // by whom the request waits; nil if it does not
}

type claimState uint8

const (
	claimFree claimState = iota
	claimBegun
	claimRefused
)

// Dropper is where a request waits. Drop lets go of the request's data, which nobody
// will want any more; it does not block, nor use the claim.
type Dropper interface{ Drop() }

// Hold says where the request waits, so that its data is let go of as soon as it is
// refused, although it may stay in a queue for long: at once if it was refused already.
// A request waits in one place at a time; another Hold takes the place of the last one.
func (c *Claim) Hold(d Dropper) {
	if c == nil {
		return
	}
	c.mu.Lock()
	refused := c.state == claimRefused
	if c.state == claimFree {
		c.held = d
	}
	c.mu.Unlock()
	if refused {
		d.Drop()
	}
}

// Begin takes the claim to carry the request out. false means that it was refused.
func (c *Claim) Begin() bool {
	if c == nil {
		return true
	}
	_, ok := c.take(claimBegun)
	return ok
}

// Wait gives the claim of a request that had begun back: it waits again, in d.
func (c *Claim) Wait(d Dropper) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == claimBegun {
		c.state, c.held = claimFree, d
	}
}

// Refuse takes the claim to refuse the request, and drops its data where it waits. false
// means that it has begun, or that somebody else has refused it. After true the request
// will not be carried out.
func (c *Claim) Refuse() bool {
	if c == nil {
		return false
	}
	held, ok := c.take(claimRefused)
	if held != nil {
		held.Drop()
	}
	return ok
}

func (c *Claim) take(s claimState) (held Dropper, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != claimFree {
		return nil, false
	}
	c.state, held, c.held = s, c.held, nil
	return held, true
}

// Refused reports whether the request was refused.
func (c *Claim) Refused() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == claimRefused
}
