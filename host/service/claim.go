package service

import "sync"

// Claim decides exactly once whether a waiting request is carried out or refused. While it waits, for a
// mailbox or for a service that starts, several may try to end it: its shard, a timer, its sender. The one
// that takes the claim answers the request, and no one else does. The zero value is free. A nil Claim can
// always begin and never be refused. It is safe for concurrent use.
type Claim struct {
	mu    sync.Mutex // guards all below
	state claimState
	held  Dropper // where the request waits; nil if it does not wait
}

type claimState uint8

const (
	claimFree claimState = iota
	claimBegun
	claimRefused
)

// Dropper is a place where a request waits. Drop drops the request's data, which is no longer needed. It does
// not block, and does not use the claim.
type Dropper interface{ Drop() }

// Hold says where the request waits. When it is refused its data is dropped there at once, even if the
// request stays in a queue; if it was refused already, Hold drops it. A request waits in one place at a time:
// a later Hold replaces an earlier one.
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

// Wait gives back the claim of a request that had begun; it waits again, in d.
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

// Refuse takes the claim to refuse the request, and drops its data where it waits. true means that the
// request will not be carried out; false means that it has begun, or was refused before.
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
