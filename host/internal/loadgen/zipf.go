package loadgen

import (
	"math"
	"math/rand/v2"
)

// Zipf draws ranks from 0 to n-1, rank k with a probability proportional to 1/(k+1)^alpha. Alpha 0
// is uniform; with 1.5 the first ten of 100,000 ranks get three quarters of all draws. (The sampler
// of math/rand requires alpha > 1.) It is not safe for concurrent use.
//
// The method is rejection-inversion by Hörmann and Derflinger, 1996: invert the integral of the
// density, which lies above the histogram of the distribution, and reject what falls between the
// two. It needs no table, and fewer than 1.3 random numbers per rank.
type Zipf struct {
	rng   *rand.Rand
	n     float64
	alpha float64
	low   float64 // integral(1.5) - 1
	high  float64 // integral(n + 0.5)
	sure  float64 // if the distance to the next rank is at most this, nothing is rejected
}

// NewZipf makes a sampler of n ranks. It panics unless n is at least 1 and alpha at least 0.
func NewZipf(rng *rand.Rand, n int, alpha float64) *Zipf {
	if n < 1 || alpha < 0 || math.IsNaN(alpha) {
		panic("loadgen: a Zipf distribution needs at least one rank and an alpha of at least 0")
	}
	z := &Zipf{rng: rng, n: float64(n), alpha: alpha}
	z.low = z.integral(1.5) - 1
	z.high = z.integral(z.n + 0.5)
	z.sure = 2 - z.inverse(z.integral(2.5)-z.density(2))
	return z
}

// Next draws a rank.
func (z *Zipf) Next() int {
	if z.alpha == 0 {
		return z.rng.IntN(int(z.n))
	}
	for {
		u := z.high + z.rng.Float64()*(z.low-z.high)
		x := z.inverse(u)
		k := min(max(math.Floor(x+0.5), 1), z.n)
		if k-x <= z.sure || u >= z.integral(k+0.5)-z.density(k) {
			return int(k) - 1
		}
	}
}

func (z *Zipf) density(x float64) float64 { return math.Exp(-z.alpha * math.Log(x)) }

// integral returns the integral of the density from 1 to x, (x^(1-alpha) - 1) / (1 - alpha),
// written so that alpha = 1, where it is log x, is no special case.
func (z *Zipf) integral(x float64) float64 {
	l := math.Log(x)
	return expm1Over((1-z.alpha)*l) * l
}

func (z *Zipf) inverse(y float64) float64 {
	t := max(y*(1-z.alpha), -1) // rounding may take it below -1
	return math.Exp(log1pOver(t) * y)
}

// expm1Over is (e^x - 1) / x, log1pOver log(1 + x) / x; both are 1 at 0.
func expm1Over(x float64) float64 {
	if math.Abs(x) < 1e-8 {
		return 1 + x/2
	}
	return math.Expm1(x) / x
}

func log1pOver(x float64) float64 {
	if math.Abs(x) < 1e-8 {
		return 1 - x/2
	}
	return math.Log1p(x) / x
}
