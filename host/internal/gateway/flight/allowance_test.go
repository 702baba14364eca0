package flight

import (
	"testing"
	"time"
)

// A body has a floor of time plus what its bytes have earned, but never more than the floor from now on.
func TestAllowance(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	const floor = 30 * time.Second
	// drip is how long a body lasts that sends n bytes each period, at most an hour.
	drip := func(n int, period time.Duration) time.Duration {
		l := beginAllowance(floor, begin)
		for now := begin; ; {
			if now = now.Add(period); now.After(l.until) {
				return l.until.Sub(begin)
			}
			if now.Sub(begin) > time.Hour {
				return now.Sub(begin)
			}
			l.earn(n, now)
		}
	}
	for _, c := range []struct {
		n      int
		period time.Duration
		min    time.Duration
		max    time.Duration
	}{
		{0, time.Second, floor, floor},
		{1, time.Second, floor, floor + time.Millisecond},
		{1, 5 * time.Second, floor, floor + time.Millisecond},
		{bodyRate / 2, time.Second, 2*floor - 2*time.Second, 2 * floor}, // half the rate: twice the floor
		{bodyRate, time.Second, time.Hour, 2 * time.Hour},
		{64 * bodyRate, 10 * time.Second, time.Hour, 2 * time.Hour},
		{64 * bodyRate, 31 * time.Second, floor, floor}, // even so it may not stop for longer
	} {
		if got := drip(c.n, c.period); got < c.min || got > c.max {
			t.Errorf("%d bytes each %v last %v; want %v to %v", c.n, c.period, got, c.min, c.max)
		}
	}
	l := beginAllowance(floor, begin)
	l.earn(1<<30, begin.Add(time.Second))
	if got := l.until.Sub(begin); got != floor+time.Second {
		t.Errorf("a body that came at once and then stops has %v", got)
	}
}
