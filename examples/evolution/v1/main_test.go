package main

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

func TestScan(t *testing.T) {
	guesttest.Given(t, Service, "P-1").
		When("scan", Scan{Place: "Lyon, FR"}).Then(Scanned{Place: "Lyon, FR"}).
		Reply(Parcel{Places: []string{"Lyon, FR"}}).
		When("scan", Scan{}).Rejected("no_place")
}
