package main

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

// The file is an export of the log as v3 has left it.
func TestWhatEarlierVersionsWrote(t *testing.T) {
	x := guesttest.GivenExport(t, Service, "../testdata/v3.jsonl")
	x.Entity("P-1").
		When("scan", Scan{Place: "Wien,AT", Grams: 905}).Then(Reached{City: "Wien", Country: "AT", Grams: 905}).
		Reply(Parcel{Places: []string{"Lyon, FR", "Bern, CH", "Graz, AT", "Wien, AT"}, Grams: 905})
	x.Entity("P-2").Query("track", nil).Reply(Parcel{Places: []string{"depot"}})
}

func TestScan(t *testing.T) {
	guesttest.Given(t, Service, "P-3").
		When("scan", Scan{Place: "depot"}).Rejected("no_place").
		When("scan", Scan{Place: "Lyon, FR", Grams: -1}).Rejected("bad_weight").
		When("scan", Scan{Place: "Lyon, FR"}).Then(Reached{City: "Lyon", Country: "FR"})
}
