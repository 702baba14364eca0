package host

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A retention waits for a busy service, but not forever.
func TestCoverWaitsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, free := 0, 3
		ask := func(done func(error)) error {
			var err error
			if asked++; asked <= free {
				err = service.Errorf(service.KindOverloaded, "busy")
			}
			if err != nil && asked%2 == 0 { // immediately, or later
				return err
			}
			go done(err)
			return nil
		}
		if err := cover(t.Context(), ask); err != nil || asked != free+1 {
			t.Errorf("asked %d times: %v", asked, err)
		}
		begun := time.Now()
		asked, free = 0, 1<<30
		if err := cover(t.Context(), ask); service.KindOf(err) != service.KindOverloaded ||
			time.Since(begun) > coverTime+busy.Max || asked > 30 {
			t.Errorf("asked %d times in %v: %v", asked, time.Since(begun), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := cover(ctx, ask); err != ctx.Err() || err == nil {
			t.Error(err)
		}
	})
}
