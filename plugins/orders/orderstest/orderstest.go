// Package orderstest is the test of package orders. It runs natively or against the compiled module.
package orderstest

import (
	"math"
	"testing"
	"time"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/plugins/orders"
)

// Run runs the test on the driver.
func Run(t *testing.T, d guesttest.Driver) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	given := func(t *testing.T, events ...guest.Event[orders.Order]) *guesttest.Case[orders.Order] {
		return guesttest.GivenOn(t, d, orders.Service, "order-1", events...).At(at)
	}
	pens := orders.Line{SKU: "pen", Quantity: 2, Price: 150}
	added := orders.LineAdded{Line: pens}
	placed := orders.OrderPlaced{Total: 300, At: at}
	paid := orders.OrderPaid{Reference: "r"}
	shipped := orders.OrderShipped{Tracking: "t"}
	cancelled := orders.OrderCancelled{Reason: "changed my mind"}

	t.Run("from draft to shipped", func(t *testing.T) {
		given(t).
			When("add", pens).Then(added).
			When("add",
				orders.Line{SKU: "ink", Quantity: 1, Price: 900}).Then(
			orders.LineAdded{Line: orders.Line{SKU: "ink", Quantity: 1, Price: 900}}).
			When("add", pens).Then(added).
			When("remove", orders.Remove{SKU: "ink"}).Then(orders.LineRemoved{SKU: "ink"}).
			Query("show", struct{}{}).Reply(orders.Order{Lines: []orders.Line{{SKU: "pen", Quantity: 4, Price: 150}},
			Total: 600}).
			When("place", struct{}{}).Then(orders.OrderPlaced{Total: 600, At: at}).
			When("pay", orders.Pay{Reference: "r", Amount: 600}).Then(paid).
			When("ship", orders.Ship{Tracking: "t"}).Then(shipped)
	})
	// What each stage allows. Everything else is rejected.
	stages := []struct {
		name    string
		events  []guest.Event[orders.Order]
		allowed map[string]bool
	}{
		{"draft", []guest.Event[orders.Order]{added}, map[string]bool{"add": true, "remove": true, "place": true,
			"cancel": true}},
		{"placed", []guest.Event[orders.Order]{added, placed}, map[string]bool{"pay": true, "cancel": true}},
		{"paid", []guest.Event[orders.Order]{added, placed, paid}, map[string]bool{"ship": true, "cancel": true}},
		{"shipped", []guest.Event[orders.Order]{added, placed, paid, shipped}, nil},
		{"cancelled", []guest.Event[orders.Order]{added, cancelled}, nil},
	}
	steps := map[string]struct {
		data any
		then guest.Event[orders.Order]
	}{
		"add": {pens, added}, "remove": {orders.Remove{SKU: "pen"}, orders.LineRemoved{SKU: "pen"}},
		"place": {struct{}{}, placed},
		"pay":   {orders.Pay{Reference: "r", Amount: 300}, paid}, "ship": {orders.Ship{Tracking: "t"}, shipped},
		"cancel": {orders.Cancel{Reason: "changed my mind"}, cancelled},
	}
	for _, stage := range stages {
		for command, step := range steps {
			t.Run(command+" when "+stage.name, func(t *testing.T) {
				c := given(t, stage.events...).When(command, step.data)
				if stage.allowed[command] {
					c.Then(step.then)
				} else {
					c.Rejected("wrong_status")
				}
			})
		}
	}
	t.Run("what makes no sense", func(t *testing.T) {
		for _, l := range []orders.Line{{}, {SKU: "a"}, {SKU: "a", Quantity: -1}, {SKU: "a", Quantity: 1, Price: -1},
			{SKU: "a", Quantity: math.MaxInt64, Price: 2}} {
			given(t).When("add", l).Rejected("bad_line")
		}
		given(t, orders.LineAdded{Line: orders.Line{SKU: "a", Quantity: math.MaxInt64}}).
			When("add", orders.Line{SKU: "a", Quantity: 1}).Rejected("bad_line")
		given(t).When("place", struct{}{}).Rejected("empty")
		given(t, added).When("remove", orders.Remove{SKU: "ink"}).Rejected("no_line")
		given(t, added, placed).When("pay", orders.Pay{Amount: 299}).Rejected("wrong_amount")
	})
	t.Run("too many lines", func(t *testing.T) {
		var events []guest.Event[orders.Order]
		for i := range orders.MaxLines {
			events = append(events, orders.LineAdded{Line: orders.Line{SKU: string(rune('a' + i)), Quantity: 1}})
		}
		given(t, events...).When("add", pens).Rejected("too_many_lines")
	})
}
