// Package mint has the key with which receipts are made. Only packages below journal can import it, so only they
// can make a receipt.
package mint

// Key lets its holder make receipts. The zero Key is not valid, as code elsewhere can have a zero value of a type
// that it cannot name.
type Key struct{ valid bool }

// NewKey returns a valid key.
func NewKey() Key { return Key{valid: true} }

// Valid reports whether the key was made by NewKey.
func (k Key) Valid() bool { return k.valid }
