// Package guest is what a Go author writes a Bulkhead service against: an
// event-sourced aggregate in ordinary Go.
//
//	type Account struct{ Balance int64 }
//
//	type Deposited struct{ Amount int64 }                   // what happened
//	func (e Deposited) Apply(a *Account) { a.Balance += e.Amount } // the only code that changes state
//
//	type Deposit struct{ Amount int64 }
//
//	func deposit(tx *guest.Tx[Account], c Deposit) (int64, error) {
//		if c.Amount <= 0 {
//			return 0, guest.Reject("bad_amount", "deposit more than nothing")
//		}
//		tx.Emit(Deposited{c.Amount})
//		return tx.State().Balance, nil
//	}
//
//	var Service = guest.New[Account]("bank").Events(Deposited{})
//
//	func init() { guest.Command(Service, "deposit", deposit) }
//
// Built with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared, the module that
// imports such a package is a service: pointers, exports and encoding are this
// package's. Package guesttest runs the same service natively under go test.
//
// # The rules
//
// State changes in Apply only, and Apply depends on nothing but the event and the
// state: the host runs it again whenever it rebuilds an entity from its events. A
// handler checks, then emits; it may read the new state afterwards. Time and
// randomness come from the command ([Tx.Now], [Tx.Rand]). A handler leaves nothing
// behind: no goroutine, no global state.
//
// A handler that returns [Reject]'s error, or one that wraps it, has refused: nothing
// is written. Any other error, an error after an event, a panic, or a goroutine left
// behind is a fault: nothing is written, the caller learns that the handler failed,
// the log has the panic's message and place, and the host rebuilds the entity.
//
// Bodies are JSON. Types may be built of booleans, numbers, strings, []byte,
// slices, arrays, maps with string keys, pointers, structs, and types that have a
// text form such as time.Time. A type that would lose something on the way, such as
// one with fields that are not exported, is refused when the module starts. The
// options omitempty and omitzero mean what they mean in encoding/json.
//
// Commands and queries are read strictly, see [Command]. Events are read leniently, as
// they happened: members that the type does not have are ignored, and those that are
// missing have their zero value.
package guest
