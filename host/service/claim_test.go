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

// A request that has begun may wait again, and can then be refused as before.
func TestAClaimThatWaitsAgain(t *testing.T) {
	var c Claim
	var d dropper
	if !c.Begin() || c.Refuse() {
		t.Fatal("what has begun was refused")
	}
	c.Wait(&d)
	if !c.Refuse() || d.n.Load() != 1 || c.Begin() || !c.Refused() {
		t.Error("what waits again was not refused")
	}
	c.Wait(&d) // without effect
	if !c.Refused() || c.Begin() {
		t.Error("what was refused has come back")
	}
	var none *Claim
	none.Wait(&d)
	if !none.Begin() {
		t.Error("no claim is not free to begin")
	}
}

// dropper counts how often it is dropped.
type dropper struct{ n atomic.Int32 }

func (d *dropper) Drop() { d.n.Add(1) }

// The data of a request is dropped where it waits when it is refused, in either order; never when it has
// begun.
func TestARefusedRequestDropsItsData(t *testing.T) {
	for range 1000 {
		var c Claim
		var first, last dropper
		c.Hold(&first)
		var both sync.WaitGroup
		both.Go(func() { c.Hold(&last) })
		both.Go(func() {
			if !c.Refuse() {
				t.Error("a free claim was not refused")
			}
		})
		both.Wait()
		if last.n.Load() != 1 || first.n.Load() > 1 {
			t.Fatalf("it was dropped %d times where it was, and %d times where it is", first.n.Load(), last.n.Load())
		}
	}
	var c Claim
	var d dropper
	c.Hold(&d)
	if !c.Begin() || c.Refuse() || d.n.Load() != 0 {
		t.Error("what has begun was refused, or dropped")
	}
	var none *Claim
	none.Hold(&d)
	if d.n.Load() != 0 {
		t.Error("what cannot be refused was dropped")
	}
}
