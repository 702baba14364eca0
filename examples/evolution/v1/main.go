// Command v1 is the first version of the service: a parcel is scanned wherever it arrives.
package main

import guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"

// Parcel is the state of an entity.
type Parcel struct {
	Places []string `json:"places"`
}

// Scanned says that a parcel was seen at a place.
type Scanned struct {
	Place string `json:"place"`
}

// Apply implements guest.Event.
func (e Scanned) Apply(p *Parcel) { p.Places = append(p.Places, e.Place) }

// Scan asks to record where a parcel is.
type Scan struct {
	Place string `json:"place"`
}

// Service is what the host runs.
var Service = guest.New[Parcel]("parcels").Version("1").Events(guest.Named(Scanned{}, "scanned"))

func init() {
	guest.Command(Service, "scan", scan)
	guest.Query(Service, "track", func(v *guest.View[Parcel], _ struct{}) (Parcel, error) { return *v.State(), nil })
}

func scan(tx *guest.Tx[Parcel], c Scan) (Parcel, error) {
	if c.Place == "" {
		return Parcel{}, guest.Reject("no_place", "say where the parcel is")
	}
	tx.Emit(Scanned(c))
	return *tx.State(), nil
}

func main() {}
