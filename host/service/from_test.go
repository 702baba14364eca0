package service

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestPlacesAreRead(t *testing.T) {
	for text, want := range map[string]From{
		"": {}, "start": {}, "end": {Kind: FromEnd}, "1": {Kind: FromPosition, Position: 1},
		"0100":                        {Kind: FromPosition, Position: 100},
		"18446744073709551615":        {Kind: FromPosition, Position: math.MaxUint64},
		"2026-01-31T08:00:00Z":        {Kind: FromTime, Time: time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)},
		"2026-01-31T08:00:00.5+01:00": {Kind: FromTime, Time: time.Date(2026, 1, 31, 7, 0, 0, 5e8, time.UTC)},
		"0000-01-01T00:00:00Z":        {Kind: FromTime, Time: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)},
		"-1h":                         {Kind: FromAge, Age: time.Hour},
		"-1h30m":                      {Kind: FromAge, Age: 90 * time.Minute}, "-0s": {Kind: FromAge},
		"-7d":                            {Kind: FromAge, Age: 168 * time.Hour},
		"AgAAAAAAAAABAAAAAAAAAAAAAAAAAA": {Kind: FromCursor, Cursor: "AgAAAAAAAAABAAAAAAAAAAAAAAAAAA"},
		"nonsense":                       {Kind: FromCursor, Cursor: "nonsense"},
		"-":                              {Kind: FromCursor, Cursor: "-"}, "\xff": {Kind: FromCursor, Cursor: "\xff"},
		"12a": {Kind: FromCursor, Cursor: "12a"},
	} {
		got, err := ParseFrom(text)
		if err != nil || got.Kind != want.Kind || got.Position != want.Position || !got.Time.Equal(want.Time) ||
			got.Age != want.Age || got.Cursor != want.Cursor {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"0", "00", "18446744073709551616", "2026-01-31", "2026-13-01T00:00:00Z", "2026-01-31T08:00:00 01:00", "2026-",
		"-1", "-1h-1h", "-1w", "-7.5d", "-106752d", "-999999999999999999999h", "-9223372036854775808d",
	} {
		if got, err := ParseFrom(text); KindOf(err) != KindInvalid || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

func FuzzParseFrom(f *testing.F) {
	for _, seed := range []string{"", "start", "end", "100", "-1h", "-7d", "2026-01-31T08:00:00Z", "AgAAAAAAAAAB", "0",
		"-", "2026-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		from, err := ParseFrom(text)
		switch {
		case err != nil && (from != From{} || KindOf(err) != KindInvalid):
			t.Errorf("%q: %+v, %v", text, from, err)
		case err == nil && from.Kind == FromPosition && from.Position == 0, from.Age < 0, from.Kind == FromCursor &&
			from.Cursor != text:
			t.Errorf("%q: %+v", text, from)
		}
	})
}

// The text of a place can be parsed to the same place.
func TestTheTextOfAPlace(t *testing.T) {
	for _, from := range []From{
		{}, {Kind: FromEnd}, AfterPosition(0), AfterPosition(99), AfterCursor("AgAAAA"),
		{Kind: FromTime, Time: time.Date(2026, 1, 31, 8, 0, 0, 5, time.UTC)},
		{Kind: FromAge, Age: 90 * time.Minute}, {Kind: FromAge, Age: 7 * 24 * time.Hour},
	} {
		if got, err := ParseFrom(from.String()); err != nil || got != from {
			t.Errorf("%+v is %q, which is %+v, %v", from, from.String(), got, err)
		}
	}
}
