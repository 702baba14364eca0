package service

import (
	"cmp"
	"fmt"
)

// Ceiling holds the maximum limits of any deployment on a host. A zero field means the highest possible
// value.
type Ceiling struct {
	Limits Limits
	Shards int
}

// WithDefaults returns a copy with every zero field set to its default.
func (c Ceiling) WithDefaults() Ceiling {
	return Ceiling{Limits: c.Limits.Over(GreatestLimits()), Shards: cmp.Or(c.Shards, GreatestShards)}
}

// Validate reports every field that is out of range, as a KindInvalid error. Call it on a ceiling with its
// defaults.
func (c Ceiling) Validate() error {
	var bad []string
	check := func(name string, v, least, greatest int64) {
		if v < least || v > greatest {
			bad = append(bad, fmt.Sprintf("the ceiling of %s is %d; it may be %d to %d", name, v, least, greatest))
		}
	}
	for _, field := range limits {
		check(field.name, field.get(&c.Limits), field.least, field.greatest)
	}
	check("shards", int64(c.Shards), 1, GreatestShards)
	return invalid("ceilings", bad)
}

// Defaults are the limits and settings of services that set none: the usual ones, lowered to the ceiling.
func (c Ceiling) Defaults() (Limits, Settings) {
	s := Settings{}.WithDefaults()
	s.Shards = min(s.Shards, c.Shards)
	return DefaultLimits().Under(c.Limits), s
}

// Check refuses limits and settings above the ceiling with a KindInvalid error. It names each of them, its
// value, and its maximum.
func (c Ceiling) Check(l Limits, s Settings) error {
	var above []string
	check := func(name string, asked, maximum int64) {
		if asked > maximum {
			above = append(above, fmt.Sprintf("%s is %d; this host allows %d", name, asked, maximum))
		}
	}
	for _, field := range limits {
		check(field.name, field.get(&l), field.get(&c.Limits))
	}
	check("shards", int64(s.Shards), int64(c.Shards))
	if len(above) == 0 {
		return nil
	}
	return &Error{Kind: KindInvalid, Message: "the limits are above the ceilings of this host; lower them, or have " +
		"its operator raise the ceilings", Reasons: above}
}
