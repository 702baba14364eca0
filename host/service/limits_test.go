package service

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

func TestDefaultsAreWithinTheRanges(t *testing.T) {
	if err := (Spec{Service: "bank"}).WithDefaults().Validate(); err != nil {
		t.Fatal(err)
	}
}

// Every field must have a default, a range that refuses -1, and a place in Over.
func TestEachLimitHasDefaultAndRange(t *testing.T) {
	defaults := reflect.ValueOf(DefaultLimits())
	for i := range defaults.NumField() {
		name := defaults.Type().Field(i).Name
		if defaults.Field(i).IsZero() {
			t.Errorf("%s has no default", name)
		}
		bad := DefaultLimits()
		reflect.ValueOf(&bad).Elem().Field(i).SetInt(-1)
		var e *Error
		if err := bad.Validate(); !errors.As(err, &e) || len(e.Reasons) != 1 {
			t.Errorf("%s of -1 gives %v, want one reason", name, err)
		}
		var one Limits
		reflect.ValueOf(&one).Elem().Field(i).SetInt(7)
		if got := reflect.ValueOf(one.WithDefaults()).Field(i).Int(); got != 7 {
			t.Errorf("%s set to 7 became %d", name, got)
		}
	}
}

func TestAllBadLimitsAreReportedAtOnce(t *testing.T) {
	l := DefaultLimits()
	l.Events, l.CallTime, l.MemoryBytes = -1, 2*time.Hour, 1
	var e *Error
	if err := l.Validate(); !errors.As(err, &e) || e.Kind != KindInvalid || len(e.Reasons) != 3 {
		t.Fatalf("got %v, want three reasons", e)
	}
}
