package fair

import (
	"testing"
	"time"
)

// A long lap is measured by the thread's own time.
func TestLaps(t *testing.T) {
	now := Now()
	for name, c := range map[string]struct {
		lap      Lap
		exactly  bool
		low, top int64
	}{
		"short":                   {Lap{now - 1000, Unread}, false, 1000, 1000},
		"long and never read":     {Lap{now - 50*LongLap, Unread}, false, LongLap, LongLap},
		"long, and it did little": {Lap{now - int64(time.Hour), ThreadTime()}, false, 0, int64(time.Minute)},
		"unknown to the system":   {Lap{now - 50*LongLap, Untold}, false, 50 * LongLap, 50 * LongLap},
		"a clock that stands":     {Lap{now + 1000, Unread}, false, 0, 0},
	} {
		if name == "long, and it did little" && ThreadTime() == Untold {
			continue
		}
		if took := c.lap.Took(now, c.exactly); took < c.low || took > c.top {
			t.Errorf("%s: %v, want %v to %v", name, time.Duration(took), time.Duration(c.low), time.Duration(c.top))
		}
	}
}
