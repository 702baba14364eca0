// Command v4 changes the form of an event: city and country are apart. The new form has a new type and a new name, and
// an upcaster reads the events of v1 to v3 in it.
package main

import (
	"strings"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// Parcel is the state of an entity.
type Parcel struct {
	Places []string `json:"places"`
	Grams  int      `json:"grams,omitempty"` // as it was weighed last
}

// Reached says that a parcel reached a city.
type Reached struct {
	City    string `json:"city"`
	Country string `json:"country"`         // empty in events of v1 to v3 that did not say
	Grams   int    `json:"grams,omitempty"` // 0: it was not weighed
}

// Apply implements guest.Event.
func (e Reached) Apply(p *Parcel) {
	p.Places = append(p.Places, strings.TrimSuffix(e.City+", "+e.Country, ", "))
	if e.Grams > 0 {
		p.Grams = e.Grams
	}
}

// ArrivedV3 is the event as v1 to v3 wrote it.
type ArrivedV3 struct {
	Place string `json:"place"`
	Grams int    `json:"grams,omitempty"`
}

// Scan asks to record where a parcel is. It is as it was: clients of v1 need not change.
type Scan struct {
	Place string `json:"place" example:"Lyon, FR"`
	Grams int    `json:"grams,omitempty"`
}

// Service is what the host runs.
var Service = guest.New[Parcel]("parcels").Version("4").Events(guest.Named(Reached{}, "reached"))

func init() {
	guest.Upcast(Service, "arrived", func(old ArrivedV3) Reached {
		city, country := split(old.Place)
		return Reached{City: city, Country: country, Grams: old.Grams}
	}, "scanned")
	guest.Command(Service, "scan", scan)
	guest.Query(Service, "track", func(v *guest.View[Parcel], _ struct{}) (Parcel, error) { return *v.State(), nil })
}

// split takes a place apart. What is in the log must be read, whatever it says; so a place without a country is a city.
func split(place string) (city, country string) {
	city, country, _ = strings.Cut(place, ",")
	return strings.TrimSpace(city), strings.TrimSpace(country)
}

func scan(tx *guest.Tx[Parcel], c Scan) (Parcel, error) {
	city, country := split(c.Place)
	switch {
	case city == "" || country == "":
		return Parcel{}, guest.Reject("no_place", `say where the parcel is, such as "Lyon, FR"`)
	case c.Grams < 0:
		return Parcel{}, guest.Reject("bad_weight", "a parcel does not weigh less than nothing")
	}
	tx.Emit(Reached{City: city, Country: country, Grams: c.Grams})
	return *tx.State(), nil
}

func main() {}
