// Package service is the vocabulary of Bulkhead: names, identifiers, limits, specifications, states,
// commands, outcomes and kinds of errors. It has no goroutines and does no I/O. All other packages of the
// host use it.
package service

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Name is the name of a service: [a-z][a-z0-9-]{0,62}. It is also the name of
// the service's log.
type Name string

// Key identifies an entity within its service: 1 to 256 bytes of UTF-8. It has no control characters and no
// characters that are invisible or change the direction of text. "." and ".." are not allowed, as no URL can
// contain them.
type Key string

// Type is the name of a command, a query or an event: 1 to 128 bytes of
// letters, digits, '.', '_' and '-'.
type Type string

// CommandID identifies a command within its service: 1 to 128 bytes of printable ASCII without space. The
// sender chooses it. Sending a command again under the same id is always safe, and returns the first answer.
type CommandID string

// Digest identifies a module by the SHA-256 of its bytes.
type Digest [32]byte

// Version is the version of an entity: the number of its events.
type Version = journal.Version

// Position is the position of an event in its service's log.
type Position = journal.Position

// ParseName checks a service name.
func ParseName(s string) (Name, error) {
	if len(s) == 0 || len(s) > 63 || s[0] < 'a' || s[0] > 'z' {
		return "", Errorf(KindInvalid, "service name %s is not of the form [a-z][a-z0-9-]{0,62}", quote(s))
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "", Errorf(KindInvalid, "service name %s is not of the form [a-z][a-z0-9-]{0,62}", quote(s))
		}
	}
	return Name(s), nil
}

// ParseKey checks an entity key.
func ParseKey(s string) (Key, error) {
	if len(s) == 0 || len(s) > abi.MaxKeySize {
		return "", Errorf(KindInvalid, "key has %d bytes; a key has 1 to %d", len(s), abi.MaxKeySize)
	}
	if !utf8.ValidString(s) {
		return "", Errorf(KindInvalid, "key %s is not valid UTF-8", quote(s))
	}
	if s == "." || s == ".." {
		return "", Errorf(KindInvalid, "key %s cannot be part of a URL; use another", quote(s))
	}
	if i := strings.IndexFunc(s, safetext.Unsafe); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		return "", Errorf(KindInvalid, "key %s has a control character or an invisible one, %U at byte %d", quote(s), r,
			i)
	}
	return Key(s), nil
}

// ParseType checks the name of a command, query or event.
func ParseType(s string) (Type, error) {
	if len(s) == 0 || len(s) > abi.MaxNameSize {
		return "", Errorf(KindInvalid, "type name has %d bytes; it has 1 to %d", len(s), abi.MaxNameSize)
	}
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
		if !ok {
			return "", Errorf(KindInvalid, "type name %s may have letters, digits, '.', '_' and '-' only", quote(s))
		}
	}
	return Type(s), nil
}

// ParseCommandID checks a command id.
func ParseCommandID(s string) (CommandID, error) {
	if len(s) == 0 || len(s) > abi.MaxCommandIDSize {
		return "", Errorf(KindInvalid, "command id has %d bytes; it has 1 to %d", len(s), abi.MaxCommandIDSize)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return "", Errorf(KindInvalid, "command id %s may have printable ASCII without space only", quote(s))
		}
	}
	return CommandID(s), nil
}

// DigestOf returns the digest of a module's bytes.
func DigestOf(module []byte) Digest {
	h := sha256.New()
	yield.Write(h, module)
	var d Digest
	h.Sum(d[:0])
	return d
}

// ParseDigest parses "sha256:" and 64 hexadecimal digits; the prefix is optional.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(strings.TrimPrefix(s, "sha256:"))
	if err != nil || len(b) != len(d) {
		return Digest{}, Errorf(KindInvalid, "digest %s is not sha256: and 64 hexadecimal digits", quote(s))
	}
	copy(d[:], b)
	return d, nil
}

// String writes the digest as "sha256:" and 64 hexadecimal digits.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// quote formats untrusted text for an error: escaped and cut.
func quote(s string) string {
	const maxBytes = 80
	if len(s) > maxBytes {
		return fmt.Sprintf("%q… (%d bytes)", s[:maxBytes], len(s))
	}
	return fmt.Sprintf("%q", s)
}
