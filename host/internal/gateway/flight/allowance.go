package flight

import "time"

// bodyRate is the minimum rate of a slow client for a large body, in either direction, in bytes per second.
const bodyRate = 64 << 10

// Allowance is the time that a client has left to send more of a body or message, or to take more of what is
// written to it. It begins with a floor. Time uses it up, each byte adds to it at bodyRate, and it never exceeds
// the floor. So a client that keeps the rate may take as long as it needs. A client that does nothing has the
// floor, and so has one that was quick and then stops.
type Allowance struct {
	floor time.Duration
	until time.Time
}

// NewAllowance begins an allowance.
func NewAllowance(floor time.Duration) Allowance { return beginAllowance(floor, time.Now()) }

func beginAllowance(floor time.Duration, now time.Time) Allowance {
	return Allowance{floor: floor, until: now.Add(floor)}
}

// Until is the time at which the client is cut off unless it earns more.
func (l *Allowance) Until() time.Time { return l.until }

// Earn records that n bytes were sent or taken.
func (l *Allowance) Earn(n int) { l.earn(n, time.Now()) }

func (l *Allowance) earn(n int, now time.Time) {
	l.until = l.until.Add(time.Duration(n) * time.Second / bodyRate)
	if max := now.Add(l.floor); l.until.After(max) {
		l.until = max
	}
}

// extend adds time during which the client waited for the host.
func (l *Allowance) extend(d time.Duration) { l.until = l.until.Add(d) }
