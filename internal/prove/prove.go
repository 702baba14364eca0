// Package prove decides how long tests are. A proof is a test that does the same
// thing many times: kill a process, damage a file, run random operations. It asks
// Rounds or Time for its length:
//
//	go test              the usual length, a few seconds
//	go test -short       the proof is skipped
//	go test ... -prove   the full length, also with -short
//
// -prove.rounds and -prove.time set another full length. The random choices of a
// proof come from Seed, which logs how to repeat them.
//
// Only packages whose tests import this one have these flags. `make prove` finds the
// packages by that import.
package prove

import (
	"flag"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// flags are what the command line says. Tests of this package have flags of their own.
type flags struct {
	prove  bool
	rounds int
	time   time.Duration
	seed   uint64
}

var cmdline flags

func init() { cmdline.register(flag.CommandLine) }

func (f *flags) register(set *flag.FlagSet) {
	set.BoolVar(&f.prove, "prove", false, "run proofs at full length")
	set.IntVar(&f.rounds, "prove.rounds", 0,
		"with -prove: the number of rounds of each proof that counts rounds; 0 is the proof's own number")
	set.DurationVar(&f.time, "prove.time", 0, "with -prove: how long each timed proof runs; 0 is the proof's own time")
	set.Uint64Var(&f.seed, "prove.seed", 0, "repeat the random choices of a run; 0 chooses a new seed")
}

// Rounds returns how many rounds a proof has: usual, or full with -prove.
func Rounds(t testing.TB, usual, full int) int {
	t.Helper()
	return length(t, &cmdline, usual, full, cmdline.rounds)
}

// Time returns how long a proof runs: usual, or full with -prove.
func Time(t testing.TB, usual, full time.Duration) time.Duration {
	t.Helper()
	return length(t, &cmdline, usual, full, cmdline.time)
}

// Announcement begins what a proof at full length logs first.
const Announcement = "a proof at full length"

func length[N int | time.Duration](t testing.TB, f *flags, usual, full, asked N) N {
	t.Helper()
	switch {
	case !f.prove && testing.Short():
		t.Skip("a proof, which -short leaves out")
	case f.prove && asked > 0:
		usual = asked
	case f.prove:
		usual = full
	}
	if f.prove {
		proofs.Store(name(t), true)
		t.Logf("%s: %v", Announcement, usual)
	}
	return usual
}

// proofs has the names of the tests that run at full length.
var proofs sync.Map

// name is the name of the test that t is, or is a part of.
func name(t testing.TB) string {
	name, _, _ := strings.Cut(t.Name(), "/")
	return name
}

// SkipShort skips a test that takes long with -short, for a reason such as that it
// starts a whole host. A proof that runs at full length goes on.
func SkipShort(t testing.TB, why string) {
	t.Helper()
	if _, ok := proofs.Load(name(t)); !ok && testing.Short() {
		t.Skip("-short leaves this out: " + why)
	}
}

// Seed returns the seed of a test's random choices and logs how to repeat them.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := cmdline.seed
	for seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -prove.seed=%d", seed)
	return seed
}
