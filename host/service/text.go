package service

import (
	"errors"
	"mime"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
)

// CheckJSON reports whether b is JSON that means the same to every parser: it is UTF-8, no escape
// in it is half of a surrogate pair, and no object has two members of one name (RFC 7493, but
// noncharacters are allowed). All JSON that comes in is held to that. what names b in the
// error, if it is not empty. That is of KindInvalid, or KindTooLarge if it has too many members to tell.
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

// DecodeJSON reads JSON that passes [CheckJSON] into v. It takes a member only under its exact name
// and refuses one that v has no place for. What is wrong is said in the words of whoever wrote
// the JSON.
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
