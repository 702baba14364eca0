package service

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// FromKind is the way in which a place in a log is named.
type FromKind uint8

// The ways to name a place.
const (
	FromStart    FromKind = iota // the first readable event
	FromEnd                      // the next event that is written
	FromPosition                 // the event at a position
	FromTime                     // the first event that was written at a time or later
	FromAge                      // the first event that was written within that time
	FromCursor                   // the event after a cursor
)

// From is the place in a log at which a reader begins.
type From struct {
	Kind     FromKind
	Position Position      // of FromPosition; at least 1
	Time     time.Time     // of FromTime
	Age      time.Duration // of FromAge; at least 0
	Cursor   string        // of FromCursor; checked against the log
}

// AfterPosition is the place after the event at a position; 0 is the place before the very first event. If a
// retention has deleted the next event, reading from there is KindBadCursor.
func AfterPosition(p Position) From { return From{Kind: FromPosition, Position: p + 1} }

// AfterCursor is the place of a cursor's text, which is also the id of the event before it.
func AfterCursor(text string) From { return From{Kind: FromCursor, Cursor: text} }

// String is the text that [ParseFrom] parses. An age has the form of a [time.Duration].
func (f From) String() string {
	switch f.Kind {
	case FromEnd:
		return "end"
	case FromPosition:
		return strconv.FormatUint(uint64(f.Position), 10)
	case FromTime:
		return f.Time.Format(time.RFC3339Nano)
	case FromAge:
		return "-" + f.Age.String()
	case FromCursor:
		return f.Cursor
	}
	return "start"
}

// ParseFrom parses a place: start (or nothing), end, a position such as 100, a time as in RFC 3339 such as
// 2026-01-31T08:00:00Z, or an age such as -1h30m or -7d. Any other text is a cursor. It is total. Its errors
// are of KindInvalid.
func ParseFrom(text string) (From, error) {
	switch {
	case text == "" || text == "start":
		return From{}, nil
	case text == "end":
		return From{Kind: FromEnd}, nil
	case digits(text) == len(text):
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 {
			return From{}, Errorf(KindInvalid, "from is %.40q: positions begin with 1; the beginning is called start",
				text)
		}
		return From{Kind: FromPosition, Position: Position(n)}, nil
	case digits(text) == 4 && text[4] == '-': // no cursor begins like this
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return From{}, Errorf(KindInvalid, "from is %.40q, which is no time such as 2026-01-31T08:00:00Z or, "+
				"with a + that a URL has as %%2B, 2026-01-31T08:00:00+01:00", text)
		}
		return From{Kind: FromTime, Time: at}, nil
	case text[0] == '-' && digits(text[1:]) > 0:
		age, ok := parseAge(text[1:])
		if !ok {
			return From{}, Errorf(KindInvalid, "from is %.40q, which is no age such as -90s, -1h30m or -7d", text)
		}
		return From{Kind: FromAge, Age: age}, nil
	}
	return From{Kind: FromCursor, Cursor: text}, nil
}

// digits is how many decimal digits a text begins with.
func digits(text string) int { return len(text) - len(strings.TrimLeft(text, "0123456789")) }

// parseAge parses a duration, or a number of days.
func parseAge(text string) (time.Duration, bool) {
	const day = 24 * time.Hour
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 63)
		return time.Duration(n) * day, err == nil && n <= uint64(math.MaxInt64/day)
	}
	age, err := time.ParseDuration(text)
	return age, err == nil && age >= 0
}
