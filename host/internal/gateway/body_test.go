package gateway

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Large bodies come in at the rate that they have together, which is not held against
// their time; what is small waits for nobody.
func TestBodiesComeInAtARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			mib    = 1 << 20
			floor  = time.Second
			bodies = 64
		)
		s, err := New(newFake(), Options{BodyRate: mib, BodyTime: floor})
		if err != nil {
			t.Fatal(err)
		}
		f := s.flights.join("client", nil)
		defer f.leave()
		begin := time.Now()
		var all sync.WaitGroup
		for range bodies {
			all.Go(func() {
				r := s.reading(t.Context(), f, true)
				defer r.end()
				for range mib / pieceBytes {
					if left := time.Until(r.waits()); left < floor/2 {
						t.Errorf("the client has %v left, as the host let it wait", left)
					}
					r.came(pieceBytes)
				}
			})
		}
		synctest.Wait()
		small := s.reading(t.Context(), f, true)
		before := time.Now()
		small.came(paced)
		small.came(0) // its end
		small.end()
		if d := time.Since(before); d != 0 {
			t.Errorf("a small one waited for %v", d)
		}
		all.Wait()
		bytes := time.Duration(bodies * (mib - paced))
		want := (bytes - bodyBurst) * time.Second / mib
		if took := time.Since(begin); took < want-time.Millisecond || took > want+time.Millisecond {
			t.Errorf("%d bodies of 1 MiB took %v at 1 MiB/s, with a burst of %d bytes; want %v", bodies, took,
				bodyBurst, want)
		}
	})
}
