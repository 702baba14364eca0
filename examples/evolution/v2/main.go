// Command v2 adds a field: some scanners have scales. Events of v1 do not have the weight, and are read with 0.
package main

import guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"

// Parcel is the state of an entity.
type Parcel struct {
	Places []string `json:"places"`
	Grams  int      `json:"grams,omitempty"` // as it was weighed last
}

// Scanned says that a parcel was seen at a place.
type Scanned struct {
	Place string `json:"place"`
	Grams int    `json:"grams,omitempty"` // 0: it was not weighed
}

// Apply implements guest.Event.
func (e Scanned) Apply(p *Parcel) {
	p.Places = append(p.Places, e.Place)
	if e.Grams > 0 {
		p.Grams = e.Grams
	}
}

// Scan asks to record where a parcel is. Clients of v1 do not send a weight.
type Scan struct {
	Place string `json:"place"`
	Grams int    `json:"grams,omitempty"`
}

// Service is what the host runs.
var Service = guest.New[Parcel]("parcels").Version("2").Events(guest.Named(Scanned{}, "scanned"))

func init() {
	guest.Command(Service, "scan", scan)
	guest.Query(Service, "track", func(v *guest.View[Parcel], _ struct{}) (Parcel, error) { return *v.State(), nil })
}

func scan(tx *guest.Tx[Parcel], c Scan) (Parcel, error) {
	switch {
	case c.Place == "":
		return Parcel{}, guest.Reject("no_place", "say where the parcel is")
	case c.Grams < 0:
		return Parcel{}, guest.Reject("bad_weight", "a parcel does not weigh less than nothing")
	}
	tx.Emit(Scanned(c))
	return *tx.State(), nil
}

func main() {}
