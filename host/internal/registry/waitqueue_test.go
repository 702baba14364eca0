package registry

import (
	"context"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// The data of a request that is refused while its service starts is dropped at once, whoever refuses it, as
// nobody counts it from then on.
func TestARefusedRequestLeavesNothingInTheQueue(t *testing.T) {
	spec := service.Spec{Service: "bank"}.WithDefaults()
	svc := newService(spec, catalog.Facts{}, budget.New(nil), nil, time.Hour)
	type data [1 << 16]byte
	submit := func(deadline time.Time) (*service.Claim, chan error, weak.Pointer[data], weak.Pointer[data]) {
		body, metadata := new(data), new(data)
		claim, done := new(service.Claim), make(chan error, 1)
		c := service.Command{Service: "bank", Data: body[:], Metadata: metadata[:], Deadline: deadline, Claim: claim}
		if err := svc.Submit(c, func(_ service.Reply, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		return claim, done, weak.Make(body), weak.Make(metadata)
	}
	gone := func(what string, all ...weak.Pointer[data]) {
		t.Helper()
		runtime.GC()
		runtime.GC()
		for _, p := range all {
			if p.Value() != nil {
				t.Errorf("%s: the data is still there", what)
			}
		}
	}
	_, kept, body, metadata := submit(time.Time{})
	claim, _, body2, metadata2 := submit(time.Time{})
	if !claim.Refuse() {
		t.Fatal("a request that waits cannot be taken back")
	}
	gone("taken back by its sender", body2, metadata2)
	_, late, body3, metadata3 := submit(time.Now().Add(10 * time.Millisecond))
	if err := <-late; service.KindOf(err) != service.KindUnavailable {
		t.Errorf("at its deadline: %v", err)
	}
	gone("at its deadline", body3, metadata3)
	if body.Value() == nil || metadata.Value() == nil {
		t.Error("the data of a request that waits is gone")
	}
	for _, answer := range svc.waiting.flush(nil, func() error { return context.Canceled }) {
		answer()
	}
	<-kept
	gone("with the queue", body, metadata)
}
