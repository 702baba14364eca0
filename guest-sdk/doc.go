// Package guest is the SDK for Bulkhead services: a service is an event-sourced aggregate,
// written in ordinary Go.
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
// Built with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared, a module that imports such a
// package is a service. This package contains the module's exports and all encoding. Package
// guesttest runs the same service natively under go test.
//
// # The rules
//
// State changes in Apply only. Apply depends on nothing but the event and the state: the host
// runs it again whenever it rebuilds an entity from its events. A handler checks first and then
// emits; afterwards it may read the new state. Time and randomness come from the command
// ([Tx.Now], [Tx.Rand]). A handler must not start goroutines that outlive it, and must not
// change global state.
//
// A handler refuses by returning the error of [Reject], or an error that wraps it. Then nothing
// is written. Any other error is a fault, and so are an error after an event, a panic, and a
// goroutine that is still running. After a fault nothing is written either; the caller learns
// that the handler failed, the log gets the message and the place of a panic, and the host
// rebuilds the entity.
//
// Bodies are JSON. Types may be built of booleans, numbers, strings, []byte, slices, arrays,
// maps with string keys, pointers, structs, and types that have a text form such as time.Time.
// A type of state or event that encoding would not keep whole, such as a struct with fields that
// are not exported, is refused when the module starts. The options omitempty and omitzero mean
// the same as in encoding/json.
//
// Commands and queries are read strictly, see [Command]. Events have already happened, so they
// are read leniently: members that the type does not have are ignored, and missing members have
// their zero value.
//
// # Changing a service
//
// The journal keeps events for good, so a new build must read what all earlier ones have written.
// An event with another name keeps its old one as an alias, see [Named]. A new member of an event
// needs nothing: in old events it has its zero value. An event whose data takes another form gets
// a new type and a new name, and [Upcast] reads the stored events of the old type as the new one.
//
// The state may take any other form: entities are rebuilt from their events. Where first events
// were deleted, [UpcastState] reads the snapshots that are left of them.
package guest
