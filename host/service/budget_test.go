package service

import (
	"errors"
	"strings"
	"testing"
)

func TestBudget(t *testing.T) {
	b := Budget{}.WithDefaults()
	if err := b.Validate(); err != nil {
		t.Errorf("the defaults do not fit together: %v", err)
	}
	if err := b.Fits(DefaultLimits()); err != nil {
		t.Errorf("the default limits do not fit into it: %v", err)
	}
	for _, wrong := range []Budget{{ConnectionBytes: 1 << 10}, {FlightBytes: 64 << 20}, {ConnectionBytes: 200 << 20}} {
		var e *Error
		if err := wrong.WithDefaults().Validate(); !errors.As(err, &e) || e.Kind != KindInvalid ||
			len(e.Reasons) != 1 || !strings.HasPrefix(e.Reasons[0], "connection_bytes is ") {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}

func TestALimitAboveOneConnectionIsNamed(t *testing.T) {
	b := Budget{FlightBytes: 64 << 20, ConnectionBytes: 4 << 20}
	l := DefaultLimits()
	l.OutcomeBytes, l.CommandBytes = 4<<20-CallRoom, (4<<20-CallRoom)/3*2
	if err := b.Fits(l); err != nil {
		t.Error(err)
	}
	l.OutcomeBytes++
	l.CommandBytes++
	var e *Error
	if err := b.Fits(l); !errors.As(err, &e) || e.Kind != KindInvalid || len(e.Reasons) != 2 ||
		!strings.HasPrefix(e.Reasons[0], "command_bytes is ") || !strings.HasPrefix(e.Reasons[1], "outcome_bytes is ") {
		t.Errorf("%v", err)
	}
}
