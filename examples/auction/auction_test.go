package auction_test

import (
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/examples/auction"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

// The rules, natively: without module and host, and with a clock that the test sets.
func TestAnAuctionFromOfferToHammer(t *testing.T) {
	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	end := noon.Add(10 * time.Minute)
	guesttest.Given(t, auction.Service, "clock").At(noon).
		When("bid", auction.Bid{Bidder: "Ada", Amount: 1}).Rejected("no_lot").
		When("offer", auction.Offer{Title: "A clock", Minutes: 0}).Rejected("bad_offer").
		When("offer", auction.Offer{Title: "A clock", Minutes: 10}).Then(auction.Offered{Title: "A clock",
		Closes: end}).
		When("offer", auction.Offer{Title: "A clock", Minutes: 10}).Rejected("already_offered").
		When("bid", auction.Bid{Bidder: "Ada", Amount: 100}).Then(auction.BidPlaced{Bidder: "Ada", Amount: 100}).
		When("bid", auction.Bid{Bidder: "Grace", Amount: 100}).Rejected("too_low").
		At(end.Add(-time.Second)).
		When("bid", auction.Bid{Bidder: "Grace", Amount: 200}).
		Then(auction.BidPlaced{Bidder: "Grace", Amount: 200}, auction.Extended{Closes: end.Add(59 * time.Second)}).
		When("hammer", auction.Hammer{}).Rejected("too_early").
		At(end.Add(time.Minute)).
		When("bid", auction.Bid{Bidder: "Ada", Amount: 300}).Rejected("over").
		When("hammer", auction.Hammer{}).Then(auction.Sold{Winner: "Grace", Amount: 200}).
		When("hammer", auction.Hammer{}).Rejected("no_lot").
		Query("lot", nil).
		Reply(auction.Lot{Title: "A clock", Closes: end.Add(59 * time.Second), Highest: 200, Leader: "Grace", Bids: 2,
			Sold: true})
}

func TestNobodyBids(t *testing.T) {
	past := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	guesttest.Given(t, auction.Service, "clock", auction.Offered{Title: "A clock", Closes: past}).
		When("hammer", auction.Hammer{}).Rejected("no_bids")
}
