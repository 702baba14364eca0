package gateway

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
)

// Large bodies share a rate limit, and waiting for it does not count as their delay. Small ones wait for
// nothing.
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
		f := s.flights.Join("client", nil)
		defer f.Leave()
		begin := time.Now()
		var all sync.WaitGroup
		for range bodies {
			all.Go(func() {
				r := s.traffic.Read(t.Context(), f, true)
				defer r.End()
				for range mib / flight.PieceBytes {
					if left := time.Until(r.Waits()); left < floor/2 {
						t.Errorf("the client has %v left, as the host let it wait", left)
					}
					r.Came(flight.PieceBytes)
				}
			})
		}
		synctest.Wait()
		small := s.traffic.Read(t.Context(), f, true)
		before := time.Now()
		small.Came(flight.Paced)
		small.Came(0) // its end
		small.End()
		if d := time.Since(before); d != 0 {
			t.Errorf("a small one waited for %v", d)
		}
		all.Wait()
		bytes := time.Duration(bodies * (mib - flight.Paced))
		want := (bytes - flight.BodyBurst) * time.Second / mib
		if took := time.Since(begin); took < want-time.Millisecond || took > want+time.Millisecond {
			t.Errorf("%d bodies of 1 MiB took %v at 1 MiB/s, with a burst of %d bytes; want %v", bodies, took,
				flight.BodyBurst, want)
		}
	})
}
