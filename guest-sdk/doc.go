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
// runs it again whenever it rebuilds an entity from its events. An [InformedEvent] also sees the
// entity's key, and the event's version, time and metadata. A handler checks first and then
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
// # Describing data
//
// The manifest has a JSON Schema of each command, query, reply and event. Tags of a field say more
// about its values:
//
//	type Reserve struct {
//		_     struct{} `doc:"Reserves seats for a guest."`
//		Email string   `json:"email" doc:"Where the tickets go." format:"email" maxLength:"254"`
//		Class string   `json:"class" enum:"stalls,balcony" example:"stalls"`
//		Seats int      `json:"seats" minimum:"1" maximum:"8"`
//		Codes []string `json:"codes,omitempty" maxItems:"3" pattern:"^[A-Z]{4}$"`
//	}
//
// The tags, and what their values are:
//
//	doc                                 text for people; on a field named _, about the whole struct
//	example                             a value of the field
//	default                             a value of the field, which may be left out
//	deprecated                          true
//	format                              of text: email, uri, ipv4, or any other name
//	enum                                of text and numbers: the allowed values, separated by commas
//	minimum, maximum                    of numbers
//	exclusiveMinimum, exclusiveMaximum  of numbers
//	multipleOf                          of numbers, above 0
//	minLength, maxLength                of text, in characters
//	pattern                             of text: a regular expression, in the syntax of package regexp
//	minItems, maxItems                  of slices
//	uniqueItems                         of slices: true
//	minProperties, maxProperties        of maps
//
// Text means strings and types with a text form. A limit of text or numbers on a slice, array, map
// or pointer is for the values in it. Values of text are written as they are, other values as JSON.
//
// The host checks the limits of commands and queries before the module runs, and refuses data
// that is not within them as invalid; so does package guesttest. It does not check format,
// default, example and deprecated, which are for readers: a handler that means another default
// than the zero value sets it. A type with a text form checks its text itself. Limits of replies
// and events are for readers, too. A limit is part of what callers see of a service: one that
// becomes narrower refuses commands that were taken before.
//
// A tag with a mistake, such as a minimum of a string, panics when its type is registered. When the
// service runs natively, that includes an example that is not within the limits, and a malformed
// pattern. The host refuses a module with a malformed pattern.
//
// The formats of types are known: time.Time is a date-time, netip.Addr an ip, netip.AddrPort an
// ip-port, netip.Prefix a cidr, an array of 16 bytes called UUID a uuid. []byte is in base64, and a
// time.Duration is an integer of nanoseconds.
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
