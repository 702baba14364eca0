// Package countertest is the test of package counter. It runs natively or against the compiled module.
package countertest

import (
	"math"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter"
)

// Run runs the test on the driver.
func Run(t *testing.T, d guesttest.Driver) {
	guesttest.GivenOn(t, d, counter.Service, "c").
		When("nop", struct{}{}).Then().Reply(struct{}{}).
		When("add", counter.Add{By: 2}).Then(counter.Added{By: 2}).Reply(counter.Counter{Value: 2}).
		When("add", counter.Add{By: -5}).Then(counter.Added{By: -5}).Reply(counter.Counter{Value: -3}).
		When("add", counter.Add{}).Then(counter.Added{}).
		Query("value", struct{}{}).Reply(counter.Counter{Value: -3})
	for _, end := range []int64{math.MaxInt64, math.MinInt64} {
		step := int64(1)
		if end < 0 {
			step = -1
		}
		guesttest.GivenOn(t, d, counter.Service, "c", counter.Added{By: end}).
			When("add", counter.Add{By: step}).Rejected("overflow").
			When("add", counter.Add{By: -step}).Then(counter.Added{By: -step})
	}
}
