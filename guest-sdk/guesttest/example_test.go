package guesttest_test

import (
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter"
)

// Given these events, when a command comes, then these events and this reply. In a test
// function, t is its *testing.T.
func ExampleGiven() {
	t := &printing{}
	guesttest.Given(t, counter.Service, "apples", counter.Added{By: 2}).
		When("add", counter.Add{By: 3}).Then(counter.Added{By: 3}).Reply(counter.Counter{Value: 5}).
		When("add", counter.Add{By: 1 << 62}).Then(counter.Added{By: 1 << 62}).
		When("add", counter.Add{By: 1 << 62}).Rejected("overflow")
	fmt.Println("failed:", t.Failed())
	// Output: failed: false
}

// printing prints what a test says.
type printing struct {
	testing.TB
	failed bool
}

func (p *printing) Helper()      {}
func (p *printing) Failed() bool { return p.failed }

func (p *printing) Fatal(args ...any) {
	p.failed = true
	fmt.Println(args...)
}
