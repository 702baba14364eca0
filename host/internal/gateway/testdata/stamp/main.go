// Stamp is a service whose events have metadata of their own.
package main

import (
	"strings"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

type state struct{ N int }

type stamped struct {
	N    int
	Text string `json:",omitempty"`
}

func (s stamped) Apply(to *state) { to.N = s.N }

var service = guest.New[state]("stamp").Events(guest.Named(stamped{}, "stamped"))

func init() {
	guest.Command(service, "stamp", func(tx *guest.Tx[state], _ struct{}) (int, error) {
		tx.EmitWith(stamped{N: tx.State().N + 1}, guest.Metadata(nil).AppendPair("tenant", "acme").AppendPair("X-Actor", "clerk \"7\""))
		tx.Emit(stamped{N: tx.State().N + 1})
		return tx.State().N, nil
	})
	// An event of so many bytes.
	guest.Command(service, "fill", func(tx *guest.Tx[state], size int) (int, error) {
		tx.Emit(stamped{tx.State().N + 1, strings.Repeat("x", size)})
		return tx.State().N, nil
	})
}

func main() {}
