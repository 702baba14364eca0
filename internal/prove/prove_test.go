package prove

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
)

// fake is a test that a proof runs in.
type fake struct {
	testing.TB
	name    string
	skipped bool
	log     []string
}

func (f *fake) Name() string               { return f.name }
func (f *fake) Helper()                    {}
func (f *fake) Skip(...any)                { f.skipped = true }
func (f *fake) Logf(s string, args ...any) { f.log = append(f.log, fmt.Sprintf(s, args...)) }

// setShort sets -short until the test ends.
func setShort(t *testing.T, value string) {
	short := flag.Lookup("test.short").Value
	before := short.String()
	t.Cleanup(func() { _ = short.Set(before) })
	if err := short.Set(value); err != nil {
		t.Fatal(err)
	}
}

func TestLengths(t *testing.T) {
	for _, c := range []struct {
		name, short string
		args        []string
		rounds      int
		time        time.Duration
		skipped     bool
	}{
		{"usual", "false", nil, 3, time.Second, false},
		{"short", "true", nil, 3, time.Second, true},
		{"full", "false", []string{"-prove"}, 50, time.Minute, false},
		{"full and short", "true", []string{"-prove"}, 50, time.Minute, false},
		{"as asked", "false", []string{"-prove", "-prove.rounds=7", "-prove.time=9s"}, 7, 9 * time.Second, false},
		{"a length without -prove", "false", []string{"-prove.rounds=7", "-prove.time=9s"}, 3, time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			setShort(t, c.short)
			var f flags
			set := flag.NewFlagSet("", flag.ContinueOnError)
			f.register(set)
			if err := set.Parse(c.args); err != nil {
				t.Fatal(err)
			}
			tb := fake{name: t.Name()}
			rounds := length(&tb, &f, 3, 50, f.rounds)
			spent := length(&tb, &f, time.Second, time.Minute, f.time)
			if tb.skipped != c.skipped || !tb.skipped && (rounds != c.rounds || spent != c.time) {
				t.Errorf("%d rounds and %v, skipped %v; want %d and %v, %v", rounds, spent, tb.skipped, c.rounds,
					c.time, c.skipped)
			}
		})
	}
}

func TestWhatShortLeavesOut(t *testing.T) {
	setShort(t, "true")
	proof, other := fake{name: "TestProof"}, fake{name: "TestOther"}
	length(&proof, &flags{prove: true}, 1, 2, 0)
	part := fake{name: "TestProof/part"}
	SkipShort(&proof, "it takes long")
	SkipShort(&part, "it takes long")
	SkipShort(&other, "it takes long")
	if proof.skipped || part.skipped || !other.skipped {
		t.Errorf("skipped: proof %v, part of it %v, other %v", proof.skipped, part.skipped, other.skipped)
	}
	setShort(t, "false")
	whole := fake{name: "TestWhole"}
	if SkipShort(&whole, "it takes long"); whole.skipped {
		t.Error("skipped without -short")
	}
}

func TestSeedIsToldAndRepeats(t *testing.T) {
	var tb fake
	seed := Seed(&tb)
	if want := fmt.Sprint("-prove.seed=", seed); seed == 0 || !strings.Contains(strings.Join(tb.log, "\n"), want) {
		t.Errorf("seed %d is not in %q", seed, tb.log)
	}
	defer func(before uint64) { cmdline.seed = before }(cmdline.seed)
	if cmdline.seed = 12; Seed(&tb) != 12 {
		t.Error("a seed that was asked for is not taken")
	}
}
