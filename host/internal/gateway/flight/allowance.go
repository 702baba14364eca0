package flight

import "time"

// bodyRate is the rate that a slow client must reach with a large body, either way, in bytes a second.
const bodyRate = 64 << 10

// Allowance is the time that a client still has to send more of a body or message, or to take more of what is
// written to it. It begins with a floor. Time uses it up, each byte earns more of it at bodyRate, and there is never
// more left than the floor. So a client that keeps the rate has as long as it needs. One that does nothing has the
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

// Until is when the client is cut off unless it earns more.
func (l *Allowance) Until() time.Time { return l.until }

// Earn notes that n bytes were sent or taken.
func (l *Allowance) Earn(n int) { l.earn(n, time.Now()) }

func (l *Allowance) earn(n int, now time.Time) {
	l.until = l.until.Add(time.Duration(n) * time.Second / bodyRate)
	if max := now.Add(l.floor); l.until.After(max) {
		l.until = max
	}
}

// extend makes up for time in which the client waited for the host.
func (l *Allowance) extend(d time.Duration) { l.until = l.until.Add(d) }
