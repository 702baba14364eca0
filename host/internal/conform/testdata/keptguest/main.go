//go:build wasip1

// Keptguest breaks G21: it applies the values of its language instead of what it encoded. The slice in its
// event is the state's own.
package main

import guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"

func main() {}

type line struct {
	Item string `json:"item"`
	Qty  int    `json:"qty"`
}

type cart struct {
	Lines []line `json:"lines"`
	Saved []line `json:"saved"`
}

type (
	added   struct{ Line line }
	changed struct{ Qty int }
	kept    struct{ Lines []line }
	cleared struct{}
)

// own is the slice of the event that is being emitted. The SDK copies it, but Apply uses this one.
var own []line

func (e added) Apply(c *cart)   { c.Lines = append(c.Lines, e.Line) }
func (e changed) Apply(c *cart) { c.Lines[0].Qty = e.Qty }
func (cleared) Apply(c *cart)   { *c = cart{} }

func (e kept) Apply(c *cart) {
	c.Saved = e.Lines
	if own != nil {
		c.Saved, own = own, nil
	}
}

var service = guest.New[cart]("kept").Events(added{}, changed{}, kept{}, cleared{})

func init() {
	type none = struct{}
	guest.Command(service, "add", func(tx *guest.Tx[cart], l line) (none, error) {
		tx.Emit(added{l})
		return none{}, nil
	})
	guest.Command(service, "keep", func(tx *guest.Tx[cart], _ none) (none, error) {
		own = tx.State().Lines
		tx.Emit(kept{own})
		return none{}, nil
	})
	guest.Command(service, "change", func(tx *guest.Tx[cart], c struct{ Qty int }) (none, error) {
		tx.Emit(changed{c.Qty})
		return none{}, nil
	})
	// It ends a round, so that no difference is left.
	guest.Command(service, "clear", func(tx *guest.Tx[cart], _ none) (none, error) {
		tx.Emit(cleared{})
		return none{}, nil
	})
}
