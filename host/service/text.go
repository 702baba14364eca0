package service

import (
	"errors"
	"mime"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
)

// CheckJSON checks that b is JSON that every parser reads alike: it is UTF-8, no escape is half of a
// surrogate pair, and no object has two members with the same name (RFC 7493, but noncharacters are allowed).
// All incoming JSON is checked this way. what, if not empty, names b in the error, which is of KindInvalid;
// if there are too many members to check it is KindTooLarge.
func CheckJSON(what string, b []byte) error {
	err := jsoncheck.Check(b)
	if err == nil {
		return nil
	}
	if what != "" {
		what += ": "
	}
	return malformed(what, err)
}

// IsJSON reports whether a content type, such as a manifest's encoding, is JSON.
func IsJSON(contentType string) bool {
	t, _, _ := mime.ParseMediaType(contentType)
	return t == "application/json" || strings.HasSuffix(t, "+json")
}

// DecodeJSON decodes JSON that passes [CheckJSON] into v. It refuses members that v does not have, and names
// that differ in case. Errors use the terms of the JSON's author.
func DecodeJSON(b []byte, v any) error {
	err := jsoncheck.Decode(b, v)
	if err == nil {
		return nil
	}
	return malformed("", err)
}

func malformed(before string, err error) error {
	var known *Error
	var wrong *jsoncheck.Error
	switch {
	case errors.As(err, &known): // of one of our own types
		return known
	case errors.As(err, &wrong) && wrong.Fault == jsoncheck.TooMany:
		return Errorf(KindTooLarge, "%s%v", before, err)
	}
	return Errorf(KindInvalid, "%s%v", before, err)
}
