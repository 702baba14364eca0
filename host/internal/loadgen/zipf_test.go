package loadgen

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Draws must follow the law itself, summed up exactly.
func TestZipfFollowsTheLaw(t *testing.T) {
	const draws = 200_000
	for _, c := range []struct {
		n     int
		alpha float64
	}{{1, 0}, {1, 1.5}, {2, 1}, {10, 0}, {10, 0.3}, {10, 1}, {50, 0.99}, {50, 1.5}, {50, 3}, {100_000, 0},
		{100_000, 1.5}} {
		z := NewZipf(rand.New(rand.NewPCG(1, uint64(c.n))), c.n, c.alpha)
		counts := make([]int, c.n)
		for range draws {
			counts[z.Next()]++ // a rank out of range panics
		}
		total := 0.0
		for k := range c.n {
			total += math.Pow(float64(k+1), -c.alpha)
		}
		for k := range min(c.n, 50) {
			p := math.Pow(float64(k+1), -c.alpha) / total
			want, spread := p*draws, math.Sqrt(draws*p*(1-p))
			if got := float64(counts[k]); math.Abs(got-want) > 5*spread+1 {
				t.Errorf("n %d, alpha %g: rank %d drawn %g times, want %.0f ± %.0f", c.n, c.alpha, k, got, want, spread)
			}
		}
	}
}

func TestZipfRepeatsFromItsSeed(t *testing.T) {
	a := NewZipf(rand.New(rand.NewPCG(7, 7)), 1000, 1.5)
	b := NewZipf(rand.New(rand.NewPCG(7, 7)), 1000, 1.5)
	for range 1000 {
		if x, y := a.Next(), b.Next(); x != y {
			t.Fatalf("one seed gives %d and %d", x, y)
		}
	}
}

func BenchmarkZipf(b *testing.B) {
	z := NewZipf(rand.New(rand.NewPCG(1, 1)), 100_000, 1.5)
	for b.Loop() {
		z.Next()
	}
}
