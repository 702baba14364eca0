// Package auction is a complete service: rules, tests and module. Each entity is one lot. It shows handlers of an
// event-sourced service that depend on time: the clock is the command's, so a lot that is rebuilt from its events
// years later has closed at the same moment.
package auction

import (
	"strconv"
	"time"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// Lot is the state of one auction. Only the Apply methods of events change it.
type Lot struct {
	Title   string    `json:"title"`
	Closes  time.Time `json:"closes"`
	Highest int64     `json:"highest"` // bid so far, in cents; 0 means none
	Leader  string    `json:"leader"`
	Bids    int       `json:"bids"`
	Sold    bool      `json:"sold"`
}

// Events: what happened. They contain all that is needed to apply them again, such as a time that was computed when
// the command ran.
type (
	// Offered says that a lot was offered.
	Offered struct {
		Title  string    `json:"title"`
		Closes time.Time `json:"closes"`
	}
	// BidPlaced says that there is a new highest bid.
	BidPlaced struct {
		Bidder string `json:"bidder"`
		Amount int64  `json:"amount"`
	}
	// Extended says that a late bid moved the end.
	Extended struct {
		Closes time.Time `json:"closes"`
	}
	// Sold says that the auction ended.
	Sold struct {
		Winner string `json:"winner"`
		Amount int64  `json:"amount"`
	}
)

// Apply implements guest.Event.
func (e Offered) Apply(l *Lot) { l.Title, l.Closes = e.Title, e.Closes }

// Apply implements guest.Event.
func (e BidPlaced) Apply(l *Lot) { l.Leader, l.Highest, l.Bids = e.Bidder, e.Amount, l.Bids+1 }

// Apply implements guest.Event.
func (e Extended) Apply(l *Lot) { l.Closes = e.Closes }

// Apply implements guest.Event.
func (Sold) Apply(l *Lot) { l.Sold = true }

// Commands: what a client asks for.
type (
	// Offer offers a lot for some minutes.
	Offer struct {
		Title   string `json:"title"`
		Minutes int    `json:"minutes"`
	}
	// Bid offers an amount in cents.
	Bid struct {
		Bidder string `json:"bidder"`
		Amount int64  `json:"amount"`
	}
	// Hammer ends an auction whose time is over.
	Hammer struct{}
)

// lastMinute is how long an auction goes on at least after a bid.
const lastMinute = time.Minute

// Service is what the host runs.
var Service = guest.New[Lot]("auction").Version("1").Events(
	guest.Named(Offered{}, "offered"),
	guest.Named(BidPlaced{}, "bid_placed"),
	guest.Named(Extended{}, "extended"),
	guest.Named(Sold{}, "sold"),
)

func init() {
	guest.Command(Service, "offer", offer)
	guest.Command(Service, "bid", bid)
	guest.Command(Service, "hammer", hammer)
	guest.Query(Service, "lot", func(v *guest.View[Lot], _ struct{}) (Lot, error) { return *v.State(), nil })
}

func offer(tx *guest.Tx[Lot], c Offer) (Lot, error) {
	switch {
	case tx.State().Title != "":
		return Lot{}, guest.Reject("already_offered", "the lot is up already")
	case c.Title == "" || c.Minutes < 1 || c.Minutes > 60*24*30:
		return Lot{}, guest.Reject("bad_offer", "a lot has a title and is up for 1 minute to 30 days")
	}
	tx.Emit(Offered{Title: c.Title, Closes: tx.Now().Add(time.Duration(c.Minutes) * time.Minute)})
	return *tx.State(), nil
}

func bid(tx *guest.Tx[Lot], c Bid) (Lot, error) {
	l := tx.State()
	switch {
	case l.Title == "":
		return Lot{}, guest.Reject("no_lot", "there is no such lot")
	case !tx.Now().Before(l.Closes) || l.Sold:
		return Lot{}, guest.Reject("over", "the auction is over")
	case c.Bidder == "" || c.Amount <= l.Highest:
		return Lot{}, guest.Reject("too_low", "bid more than "+strconv.FormatInt(l.Highest, 10))
	}
	tx.Emit(BidPlaced(c))
	if l.Closes.Sub(tx.Now()) < lastMinute {
		tx.Emit(Extended{Closes: tx.Now().Add(lastMinute)})
	}
	return *l, nil
}

func hammer(tx *guest.Tx[Lot], _ Hammer) (Lot, error) {
	l := tx.State()
	switch {
	case l.Title == "" || l.Sold:
		return Lot{}, guest.Reject("no_lot", "there is nothing to sell")
	case tx.Now().Before(l.Closes):
		return Lot{}, guest.Reject("too_early", "bids are taken until "+l.Closes.Format(time.RFC3339))
	case l.Bids == 0:
		return Lot{}, guest.Reject("no_bids", "nobody wanted it")
	}
	tx.Emit(Sold{Winner: l.Leader, Amount: l.Highest})
	return *l, nil
}
