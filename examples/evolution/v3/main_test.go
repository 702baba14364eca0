package main

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

// The stored events are of v1 and v2, under the old name.
func TestScan(t *testing.T) {
	guesttest.GivenJSON(t, Service, "P-1", "scanned", `{"place":"Lyon, FR"}`).
		AndJSON("scanned", `{"place":"Bern, CH","grams":900}`).
		When("scan", Scan{Place: "Graz, AT"}).Then(Arrived{Place: "Graz, AT"}).
		Reply(Parcel{Places: []string{"Lyon, FR", "Bern, CH", "Graz, AT"}, Grams: 900})
}
