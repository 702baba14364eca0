package lifecycle

import (
	"testing"
	"time"
)

func TestBackoffGrowsToItsBound(t *testing.T) {
	b := Backoff{First: 100 * time.Millisecond, Max: time.Second}
	for _, c := range []struct {
		failures int
		took     time.Duration
		want     time.Duration // without what chance takes off
	}{
		{0, 0, 100 * time.Millisecond}, {1, 0, 100 * time.Millisecond}, {2, 0, 200 * time.Millisecond}, {3, 0, 400 * time.Millisecond},
		{4, 0, 800 * time.Millisecond}, {5, 0, time.Second}, {1_000_000, 0, time.Second},
		{1, 700 * time.Millisecond, 700 * time.Millisecond}, {1, time.Hour, time.Second},
	} {
		different := map[time.Duration]bool{}
		for range 100 {
			got := b.Wait(c.failures, c.took)
			if got > c.want || got < c.want*3/4 {
				t.Fatalf("after %d failures that took %v: %v, want %v or up to a quarter less", c.failures, c.took, got, c.want)
			}
			different[got] = true
		}
		if len(different) < 2 {
			t.Errorf("after %d failures all wait equally long", c.failures)
		}
	}
}
