// Command seats2 is a later build of the service of seats1: its event holds several seats.
package main

import (
	"strings"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// HallV1 is the state of the first build.
type HallV1 struct {
	Taken    string `json:"taken"`
	Reserved int    `json:"reserved"`
}

// HallV2 is the state of a build between them.
type HallV2 struct {
	Seats []string `json:"seats"`
	Count int      `json:"count"`
}

// Hall is the state.
type Hall struct {
	Seats []string `json:"seats"`
	Times int      `json:"times"`
}

// ReservedV1 is the event of the first build.
type ReservedV1 struct {
	Seat string `json:"seat"`
}

// ReservedV2 is the event of a build between them.
type ReservedV2 struct {
	Seats []string `json:"seats"`
}

// Held says that seats are held for someone.
type Held struct {
	Seats []string `json:"seats"`
	For   string   `json:"for"`
}

// Apply changes the state.
func (e Held) Apply(h *Hall) { h.Seats, h.Times = append(h.Seats, e.Seats...), h.Times+1 }

// Hold is the command.
type Hold struct {
	Seats []string `json:"seats"`
	For   string   `json:"for"`
}

var hall = guest.New[Hall]("seats").Version("3").Events(guest.Named(Held{}, "held"))

func init() {
	guest.Upcast(hall, "reserved", func(old ReservedV1) ReservedV2 { return ReservedV2{[]string{old.Seat}} })
	guest.Upcast(hall, "reserved-2", func(old ReservedV2) Held { return Held{old.Seats, "unknown"} })
	guest.UpcastState(hall, func(old HallV2) Hall { return Hall{old.Seats, old.Count} })
	guest.UpcastState(hall, func(old HallV1) HallV2 { return HallV2{strings.Fields(old.Taken), old.Reserved} })
	guest.Command(hall, "hold", func(tx *guest.Tx[Hall], c Hold) (int, error) {
		tx.Emit(Held(c))
		return len(tx.State().Seats), nil
	})
	guest.Query(hall, "hall", func(v *guest.View[Hall], _ struct{}) (Hall, error) { return *v.State(), nil })
}

func main() {}
