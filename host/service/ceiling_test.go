package service

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// Every limit has a ceiling, and is refused above it by its name.
func TestEveryLimitHasACeiling(t *testing.T) {
	names := reflect.TypeFor[Limits]()
	for i := range names.NumField() {
		name, _, _ := strings.Cut(names.Field(i).Tag.Get("json"), ",")
		var c Ceiling
		reflect.ValueOf(&c.Limits).Elem().Field(i).SetInt(70 << 20)
		c = c.WithDefaults()
		l, s := c.Defaults()
		if err := c.Check(l, s); err != nil {
			t.Errorf("the defaults are above a ceiling of %s: %v", name, err)
		}
		reflect.ValueOf(&l).Elem().Field(i).SetInt(70<<20 + 1)
		var e *Error
		if err := c.Check(l, s); !errors.As(err, &e) || e.Kind != KindInvalid || len(e.Reasons) != 1 ||
			e.Reasons[0] != name+" is 73400321; this host allows 73400320" {
			t.Errorf("%s above its ceiling: %+v", name, err)
		}
		reflect.ValueOf(&c.Limits).Elem().Field(i).SetInt(-1)
		if err := c.Validate(); KindOf(err) != KindInvalid ||
			!strings.Contains(err.Error(), "the ceiling of "+name+" is -1") {
			t.Errorf("a ceiling of -1 for %s: %v", name, err)
		}
	}
}

func TestAllThatIsAboveIsReportedAtOnce(t *testing.T) {
	c := Ceiling{Limits: Limits{MemoryBytes: 8 << 20, Fuel: 1000}, Shards: 1}.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	l, s := c.Defaults()
	if l.MemoryBytes != 8<<20 || l.Fuel != 1000 || l.Events != 1024 || s.Shards != 1 {
		t.Errorf("the defaults are %+v, %+v", l, s)
	}
	var e *Error
	if err := c.Check(DefaultLimits(), Settings{}.WithDefaults()); !errors.As(err, &e) || len(e.Reasons) != 3 {
		t.Errorf("got %+v, want three reasons", e)
	}
	if err := (Ceiling{}).WithDefaults().Check(GreatestLimits(), Settings{Shards: GreatestShards}); err != nil {
		t.Errorf("the highest of all without a ceiling: %v", err)
	}
	if err := (Ceiling{Shards: 2000}).WithDefaults().Validate(); KindOf(err) != KindInvalid {
		t.Errorf("2000 shards: %v", err)
	}
}
