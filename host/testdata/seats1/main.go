// Command seats1 is the first build of a service that changes the form of its events and state.
package main

import guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"

// Hall is the state: the seats in one text, and how often some were reserved.
type Hall struct {
	Taken    string `json:"taken"`
	Reserved int    `json:"reserved"`
}

// Reserved says that one seat is reserved.
type Reserved struct {
	Seat string `json:"seat"`
}

// Apply changes the state.
func (e Reserved) Apply(h *Hall) { h.Taken, h.Reserved = h.Taken+" "+e.Seat, h.Reserved+1 }

// Reserve is the command.
type Reserve struct {
	Seat string `json:"seat"`
}

var hall = guest.New[Hall]("seats").Version("1").Events(guest.Named(Reserved{}, "reserved"))

func init() {
	guest.Command(hall, "reserve", func(tx *guest.Tx[Hall], c Reserve) (int, error) {
		tx.Emit(Reserved(c))
		return tx.State().Reserved, nil
	})
	guest.Query(hall, "hall", func(v *guest.View[Hall], _ struct{}) (Hall, error) { return *v.State(), nil })
}

func main() {}
