package main

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

// The stored event is of v1.
func TestScan(t *testing.T) {
	guesttest.GivenJSON(t, Service, "P-1", "scanned", `{"place":"Lyon, FR"}`).
		When("scan", Scan{Place: "Bern, CH", Grams: 900}).Then(Scanned{Place: "Bern, CH", Grams: 900}).
		Reply(Parcel{Places: []string{"Lyon, FR", "Bern, CH"}, Grams: 900}).
		When("scan", Scan{Place: "Lyon, FR", Grams: -1}).Rejected("bad_weight")
}
