package sandbox

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// slowest are the worst programs that searches have found so far, and what they do.
var slowest = map[string][]byte{
	"loads that miss":             {20, 0, 0, 255},
	"quick, then loads that miss": {22, 0, 1, 255, 10, 0, 0, 255},
	"fresh pages":                 {12, 0, 3, 0},
	"quick, then fresh pages":     {20, 0, 1, 100, 12, 0, 3, 0},
	"large copies":                {20, 0, 10, 22},
	"copies of small pieces":      {20, 0, 10, 12},
	"fills":                       {20, 0, 11, 22},
	"deep returns":                {20, 0, 18, 255},
	"references":                  {20, 0, 7, 255},
	"growth by nothing":           {20, 0, 8, 255},
	"tables":                      {20, 1, 12, 255, 13, 255},
	"vectors":                     {20, 0, 15, 255},
	"random bytes":                {20, 0, 16, 22},
	"polls":                       {20, 0, 17, 255},
	"roots":                       {20, 0, 5, 255},
	"subnormal numbers":           {20, 0, 4, 255},
}

// slowTime is the measured part of the guest's processor time.
const slowTime = 100 * time.Millisecond

// longestGrant is a program's score: its longest grant, without the longest thousandth, and without one,
// which may be due to the machine.
func longestGrant(t testing.TB, program []byte) time.Duration {
	all := grants(t, testguest.Slow("slow", program), slowTime)
	if len(all) < 2 {
		return 0
	}
	slices.Sort(all)
	return time.Duration(all[len(all)-2-len(all)/1000])
}

// tooLong is a grant that noise of the machine does not explain if it occurs in each of three runs: the
// thread's own processor time is measured. The target is a millisecond, and the benchmark checks it.
const tooLong = 10 * time.Millisecond

func checkSlow(t *testing.T, program []byte) {
	var score time.Duration
	for range 3 {
		if score = longestGrant(t, program); score < tooLong {
			return
		}
	}
	t.Errorf("%v runs %v between two looks of the host", program, score)
}

func TestSlowestPrograms(t *testing.T) {
	prove.SkipShort(t, "it measures how long guests run")
	raced.Skip(t, "it measures how long guests run")
	for name, program := range slowest {
		t.Run(name, func(t *testing.T) { checkSlow(t, program) })
	}
}

// FuzzSlow looks for programs that run for long between two checks of the host.
func FuzzSlow(f *testing.F) {
	prove.SkipShort(f, "it measures how long guests run")
	for _, program := range slowest {
		f.Add(program)
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 256 {
			t.Skip("longer than any that says something new")
		}
		checkSlow(t, program)
	})
}

// A search by mutation for the worst program. Fuzzing is guided by coverage, this by the length of grants. It
// prints what it found.
func TestSearchForSlowModules(t *testing.T) {
	raced.Skip(t, "it measures how long guests run")
	length := prove.Time(t, 2*time.Second, 5*time.Minute)
	random := rand.New(rand.NewPCG(prove.Seed(t), 0))
	type found struct {
		program []byte
		score   time.Duration
	}
	var best []found
	for _, name := range slices.Sorted(maps.Keys(slowest)) {
		best = append(best, found{program: slowest[name]})
	}
	end := time.Now().Add(length)
	for n := 0; time.Now().Before(end); n++ {
		program := slices.Clone(best[random.IntN(min(len(best), 16))].program)
		for range 1 + random.IntN(4) {
			program = mutate(random, program)
		}
		best = append(best, found{program, longestGrant(t, program)})
		slices.SortStableFunc(best, func(a, b found) int { return int(b.score - a.score) })
		best = best[:min(len(best), 64)]
	}
	for _, f := range best[:min(len(best), 5)] {
		t.Logf("%8v %v", f.score, f.program)
		if f.score >= tooLong {
			checkSlow(t, f.program)
		}
	}
}

func mutate(random *rand.Rand, p []byte) []byte {
	at := random.IntN(len(p) + 1)
	switch {
	case random.IntN(3) == 0 || at == len(p):
		return slices.Insert(p, at, byte(random.Uint32()), byte(random.Uint32()))
	case random.IntN(4) == 0 && len(p) > 4:
		return slices.Delete(p, at, min(at+2, len(p)))
	case random.IntN(2) == 0:
		p[at] = byte(random.Uint32())
	default:
		p[at] += byte(1 + random.IntN(3))
	}
	return p[:min(len(p), 128)]
}
