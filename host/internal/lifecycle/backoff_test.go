package lifecycle

import (
	"context"
	"testing"
	"time"
)

func TestBackoffGrowsToItsBound(t *testing.T) {
	b := Backoff{First: 100 * time.Millisecond, Max: time.Second}
	for _, c := range []struct {
		failures int
		took     time.Duration
		want     time.Duration // before the random part is subtracted
	}{
		{0, 0, 100 * time.Millisecond}, {1, 0, 100 * time.Millisecond}, {2, 0, 200 * time.Millisecond},
		{3, 0, 400 * time.Millisecond},
		{4, 0, 800 * time.Millisecond}, {5, 0, time.Second}, {1_000_000, 0, time.Second},
		{1, 700 * time.Millisecond, 700 * time.Millisecond}, {1, time.Hour, time.Second},
	} {
		different := map[time.Duration]bool{}
		for range 100 {
			got := b.Wait(c.failures, c.took)
			if got > c.want || got < c.want*3/4 {
				t.Fatalf("after %d failures that took %v: %v, want %v or up to a quarter less", c.failures, c.took, got,
					c.want)
			}
			different[got] = true
		}
		if len(different) < 2 {
			t.Errorf("after %d failures all wait equally long", c.failures)
		}
	}
}

// A failure that names a wait gets at least that wait, spread at random.
func TestBackoffWaitsAsAsked(t *testing.T) {
	b := Backoff{First: 100 * time.Millisecond, Max: time.Second}
	for _, c := range []struct {
		failures         int
		asked, low, high time.Duration
	}{
		{1, 0, 75 * time.Millisecond, 100 * time.Millisecond},
		{2, 10 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond},
		{1, time.Second, time.Second, 1250 * time.Millisecond}, {9, time.Minute, time.Minute, 75 * time.Second},
	} {
		different := map[time.Duration]bool{}
		for range 100 {
			got := b.Asked(c.failures, c.asked)
			if got < c.low || got > c.high {
				t.Fatalf("after %d failures, asked for %v: %v, want %v to %v", c.failures, c.asked, got, c.low, c.high)
			}
			different[got] = true
		}
		if len(different) < 2 {
			t.Errorf("after %d failures, asked for %v, all wait equally long", c.failures, c.asked)
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if !Sleep(ctx, time.Microsecond) {
		t.Error("it did not wait")
	}
	cancel()
	if Sleep(ctx, time.Hour) {
		t.Error("it waited for a context that has ended")
	}
}
