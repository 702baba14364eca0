package service

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestAClaimIsTakenOnce(t *testing.T) {
	for range 1000 {
		var c Claim
		var taken atomic.Int32
		var all sync.WaitGroup
		for _, take := range []func() bool{c.Begin, c.Refuse, c.Begin, c.Refuse} {
			all.Go(func() {
				if take() {
					taken.Add(1)
				}
			})
		}
		all.Wait()
		if taken.Load() != 1 {
			t.Fatalf("it was taken %d times", taken.Load())
		}
	}
	var none *Claim
	if !none.Begin() || none.Refuse() || none.Refused() {
		t.Error("no claim is not free to begin, or can be refused")
	}
}
