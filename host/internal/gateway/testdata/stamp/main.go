// Stamp is a service whose events have metadata of their own.
package main

import guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"

type state struct{ N int }

type stamped struct{ N int }

func (s stamped) Apply(to *state) { to.N = s.N }

var service = guest.New[state]("stamp").Events(guest.Named(stamped{}, "stamped"))

func init() {
	guest.Command(service, "stamp", func(tx *guest.Tx[state], _ struct{}) (int, error) {
		tx.EmitWith(stamped{tx.State().N + 1}, guest.Metadata(nil).AppendPair("tenant", "acme").AppendPair("X-Actor", "clerk \"7\""))
		tx.Emit(stamped{tx.State().N + 1})
		return tx.State().N, nil
	})
}

func main() {}
