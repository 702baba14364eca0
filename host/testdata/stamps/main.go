// Command stamps is a service whose events are applied with what the log has of them besides their data.
package main

import (
	"time"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// Book is the state.
type Book struct {
	Stamps []Stamp `json:"stamps"`
}

// Stamp is what an event was applied with.
type Stamp struct {
	Key     string    `json:"key"`
	Version uint64    `json:"version"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Tenant  string    `json:"tenant"` // the command has it, and the event does not
	Note    string    `json:"note"`
}

// Stamped says that somebody stamped.
type Stamped struct {
	guest.Informed[Book]
	Note string `json:"note"`
}

// ApplyWith changes the state.
func (e Stamped) ApplyWith(b *Book, info guest.EventInfo) {
	by, _ := info.Metadata.Get("by")
	tenant, _ := info.Metadata.Get("tenant")
	b.Stamps = append(b.Stamps, Stamp{info.Key, info.Version, info.Time, string(by), string(tenant), e.Note})
}

// TwoStamps asks for two stamps.
type TwoStamps struct {
	Note string `json:"note"`
}

var book = guest.New[Book]("stamps").Events(guest.Named(Stamped{}, "stamped"))

func init() {
	guest.Command(book, "stamp", func(tx *guest.Tx[Book], c TwoStamps) (Book, error) {
		tx.EmitWith(Stamped{Note: c.Note}, guest.Metadata(nil).AppendPair("by", "command "+tx.CommandID()))
		tx.Emit(Stamped{Note: "again"})
		return *tx.State(), nil
	})
	guest.Query(book, "book", func(v *guest.View[Book], _ struct{}) (Book, error) { return *v.State(), nil })
}

func main() {}
