package main

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

// The first file is an export of the log as v3 has left it, and the second one as v4 has: there a retention has deleted
// the first events, so a snapshot of v4 stands for them. Both are the same parcel.
func TestWhatEarlierVersionsWrote(t *testing.T) {
	want := Parcel{Borders: 2, Grams: 905,
		Stops: []Stop{{"Lyon", "FR"}, {"Bern", "CH"}, {"Graz", "AT"}, {"Wien", "AT"}}}
	x := guesttest.GivenExport(t, Service, "../testdata/v3.jsonl")
	x.Entity("P-1").When("scan", Scan{Place: "Wien, AT", Grams: 905}).Reply(want)
	x.Entity("P-2").Query("track", nil).Reply(Parcel{Stops: []Stop{{City: "depot"}}})

	guesttest.GivenExport(t, Service, "../testdata/v4.jsonl").Entity("P-1").Query("track", nil).Reply(want)
}
