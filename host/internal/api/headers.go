package api

import (
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// The headers of a command or query, beside the usual ones. Traceparent and Tracestate become part of the
// command's metadata.
const (
	HeaderCommandID   = "Idempotency-Key"      // the command id, as a quoted string or a bare token
	HeaderExpected    = "If-Match"             // the version that the entity must have, as an entity tag: "7"
	HeaderDeadline    = "Bulkhead-Deadline-Ms" // for how many milliseconds the sender waits
	HeaderMetadata    = "Bulkhead-Metadata"    // a JSON object of strings, in ASCII
	HeaderRequestID   = "Bulkhead-Request-Id"  // of an answer: the id of the request in the host's log
	HeaderNext        = "Bulkhead-Next"        // of a batch of CloudEvents: what next is in a page
	HeaderTraceparent = "Traceparent"
	HeaderTracestate  = "Tracestate"
	HeaderLastEventID = "Last-Event-Id"
)

// ParseIdempotencyKey reads a command id from an Idempotency-Key: a string of
// RFC 9651 in quotes, or the id as it is.
func ParseIdempotencyKey(s string) (service.CommandID, error) {
	inner, quoted := strings.CutPrefix(s, `"`)
	if !quoted {
		return service.ParseCommandID(s)
	}
	id := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		switch c := inner[i]; c {
		case '\\':
			i++
			if i == len(inner) || inner[i] != '"' && inner[i] != '\\' {
				return "", service.Errorf(service.KindInvalid, `Idempotency-Key: in a quoted string, \ stands before " or \ only`)
			}
			id = append(id, inner[i])
		case '"':
			if i != len(inner)-1 {
				return "", service.Errorf(service.KindInvalid, "Idempotency-Key: there is text after the "+
					"closing quote")
			}
			return service.ParseCommandID(string(id))
		default:
			id = append(id, c)
		}
	}
	return "", service.Errorf(service.KindInvalid, "Idempotency-Key: the closing quote is missing")
}

// FormatIdempotencyKey writes a command id as a quoted string.
func FormatIdempotencyKey(id service.CommandID) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(string(id)) + `"`
}

// ParseIfMatch parses an expected version: one strong entity tag with a decimal number. It refuses lists,
// weak tags and *.
func ParseIfMatch(s string) (service.Version, error) {
	inner, ok := strings.CutPrefix(s, `"`)
	if ok {
		inner, ok = strings.CutSuffix(inner, `"`)
	}
	n, err := strconv.ParseUint(inner, 10, 64)
	if !ok || err != nil {
		return 0, service.Errorf(service.KindInvalid, `If-Match takes one version in quotes, such as "7"`)
	}
	return service.Version(n), nil
}

// FormatETag writes a version as an entity tag.
func FormatETag(v service.Version) string { return `"` + strconv.FormatUint(uint64(v), 10) + `"` }

// maxDeadline is the longest possible deadline; longer ones are shortened to it.
const maxDeadline = 24 * time.Hour

// ParseDeadline parses a Bulkhead-Deadline-Ms: how long the sender waits from now. Zero and less have already
// passed.
func ParseDeadline(s string) (time.Duration, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, service.Errorf(service.KindInvalid, "%s takes a whole number of milliseconds from now",
			HeaderDeadline)
	}
	return DeadlineOf(n), nil
}

// DeadlineOf limits a number of milliseconds to what a timer can hold.
func DeadlineOf(ms int64) time.Duration {
	if ms <= 0 {
		return 0
	}
	return time.Duration(min(ms, maxDeadline.Milliseconds())) * time.Millisecond
}

// FormatDeadline writes the time that is left as a Bulkhead-Deadline-Ms, rounded up.
func FormatDeadline(left time.Duration) string {
	return strconv.FormatInt(max(0, (left+time.Millisecond-1).Milliseconds()), 10)
}

// ValidTraceparent reports whether s has the form of a W3C traceparent. Anything else is left out of the
// metadata, as that standard requires.
func ValidTraceparent(s string) bool {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" || len(s) > 55 &&
		(s[:2] == "00" || s[55] != '-') {
		return false
	}
	hex := func(s string) (ok, zero bool) {
		zero = true
		for i := range len(s) {
			c := s[i]
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false, false
			}
			zero = zero && c == '0'
		}
		return true, zero
	}
	version, _ := hex(s[:2])
	trace, noTrace := hex(s[3:35])
	span, noSpan := hex(s[36:52])
	flags, _ := hex(s[53:55])
	if len(s) > 255 || !version || !trace || !span || !flags || noTrace || noSpan {
		return false
	}
	return printable(s)
}

// ValidTracestate reports whether s may be kept as a W3C tracestate, and is not empty.
func ValidTracestate(s string) bool { return s != "" && len(s) <= 512 && printable(s) }

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
