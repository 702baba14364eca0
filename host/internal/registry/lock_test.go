package registry

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A retention whose client has gone does not wait for a deployment.
func TestARetentionGivesUpWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService(service.Spec{Service: "tally"}, catalog.Facts{}, budget.New(nil), nil, time.Minute)
		svc.swapping.Lock() // a deployment drains
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := new(Registry).HoldModule(ctx, svc, service.Digest{}, 1)
		if service.KindOf(err) != service.KindDeadline || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		svc.swapping.Unlock()
		if err := svc.swapping.LockWithin(ctx); err != nil {
			t.Errorf("what is free is not taken: %v", err)
		}
	})
}
