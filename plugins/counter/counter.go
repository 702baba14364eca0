// Package counter is the smallest service: a number that goes up.
package counter

import guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"

// Counter is the state.
type Counter struct {
	Value int64 `json:"value"`
}

// Added says that the counter changed.
type Added struct {
	By int64 `json:"by"`
}

// Apply implements guest.Event.
func (e Added) Apply(c *Counter) { c.Value += e.By }

// Add asks to change the counter.
type Add struct {
	By int64 `json:"by"`
}

// Service is the counter.
var Service = guest.New[Counter]("counter").Version("1").Events(guest.Named(Added{}, "added"))

func init() {
	guest.Command(Service, "add", func(tx *guest.Tx[Counter], c Add) (Counter, error) {
		if sum := tx.State().Value + c.By; (sum > tx.State().Value) != (c.By > 0) && c.By != 0 {
			return Counter{}, guest.Reject("overflow", "the counter cannot count that far")
		}
		tx.Emit(Added{c.By})
		return *tx.State(), nil
	})
	guest.Command(Service, "nop", func(*guest.Tx[Counter], struct{}) (struct{}, error) { return struct{}{}, nil })
	guest.Query(Service, "value", func(v *guest.View[Counter], _ struct{}) (Counter, error) { return *v.State(), nil })
}
