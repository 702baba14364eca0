// Command v5 changes the form of the state: a parcel knows its stops, and how many borders it has crossed. Entities are
// rebuilt from their events. Where the first events were deleted, an upcaster reads the snapshots that v4 has left.
package main

import (
	"strings"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// Parcel is the state of an entity.
type Parcel struct {
	Stops   []Stop `json:"stops"`
	Borders int    `json:"borders"`         // that it has crossed
	Grams   int    `json:"grams,omitempty"` // as it was weighed last
}

// Stop is where a parcel was.
type Stop struct {
	City    string `json:"city"`
	Country string `json:"country"` // empty if it is not known
}

func (p *Parcel) reach(s Stop) {
	if n := len(p.Stops); n > 0 && p.Stops[n-1].Country != s.Country {
		p.Borders++
	}
	p.Stops = append(p.Stops, s)
}

// Reached says that a parcel reached a city.
type Reached struct {
	City    string `json:"city"`
	Country string `json:"country"`
	Grams   int    `json:"grams,omitempty"` // 0: it was not weighed
}

// Apply implements guest.Event.
func (e Reached) Apply(p *Parcel) {
	p.reach(Stop{City: e.City, Country: e.Country})
	if e.Grams > 0 {
		p.Grams = e.Grams
	}
}

// ArrivedV3 is the event as v1 to v3 wrote it.
type ArrivedV3 struct {
	Place string `json:"place"`
	Grams int    `json:"grams,omitempty"`
}

// ParcelV4 is the state as v2 to v4 had it.
type ParcelV4 struct {
	Places []string `json:"places"`
	Grams  int      `json:"grams,omitempty"`
}

// Scan asks to record where a parcel is. It is as it was: clients of v1 need not change.
type Scan struct {
	Place string `json:"place" example:"Lyon, FR"`
	Grams int    `json:"grams,omitempty"`
}

// Service is what the host runs.
var Service = guest.New[Parcel]("parcels").Version("5").Events(guest.Named(Reached{}, "reached"))

func init() {
	guest.Upcast(Service, "arrived", func(old ArrivedV3) Reached {
		stop := split(old.Place)
		return Reached{City: stop.City, Country: stop.Country, Grams: old.Grams}
	}, "scanned")
	guest.UpcastState(Service, parcelOfV4)
	guest.Command(Service, "scan", scan)
	guest.Query(Service, "track", func(v *guest.View[Parcel], _ struct{}) (Parcel, error) { return *v.State(), nil })
}

// parcelOfV4 gives the state that the parcel's events would give.
func parcelOfV4(old ParcelV4) Parcel {
	p := Parcel{Grams: old.Grams}
	for _, place := range old.Places {
		p.reach(split(place))
	}
	return p
}

// split takes a place apart. What is in the log must be read, whatever it says; so a place without a country is a city.
func split(place string) Stop {
	city, country, _ := strings.Cut(place, ",")
	return Stop{City: strings.TrimSpace(city), Country: strings.TrimSpace(country)}
}

func scan(tx *guest.Tx[Parcel], c Scan) (Parcel, error) {
	stop := split(c.Place)
	switch {
	case stop.City == "" || stop.Country == "":
		return Parcel{}, guest.Reject("no_place", `say where the parcel is, such as "Lyon, FR"`)
	case c.Grams < 0:
		return Parcel{}, guest.Reject("bad_weight", "a parcel does not weigh less than nothing")
	}
	tx.Emit(Reached{City: stop.City, Country: stop.Country, Grams: c.Grams})
	return *tx.State(), nil
}

func main() {}
