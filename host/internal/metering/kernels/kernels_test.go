package kernels

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering/meteringtest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// The kernels compute the same in every variant, and the fuel does not depend on canonical NaNs.
func TestVariantsAgree(t *testing.T) {
	raced.Skip(t, "it compiles Go guests, and has one goroutine")
	prove.SkipShort(t, "it builds and compiles Go guests")
	variants := map[string][]Variant{"c": Variants, "go": {Plain, Canonical}}
	for language := range variants {
		instances := start(t, language, variants[language])
		for _, k := range All {
			if k.Language != language {
				continue
			}
			want, err := instances[Plain].Run(k.Name, 3)
			if err != nil || want == 0 || want == -1 {
				t.Fatalf("%s/%s: %d, %v", k.Language, k.Name, want, err)
			}
			for _, v := range variants[language] {
				got, err := instances[v].Run(k.Name, 3)
				// memcpy and crc continue where they were.
				if err != nil || v != Plain && got != want && k.Name != "memcpy" && k.Name != "crc" {
					t.Errorf("%s/%s %s: %d, %v; want %d", k.Language, k.Name, v, got, err, want)
				}
			}
			if instances[Canonical].Fuel() <= 0 || language == "c" &&
				instances[Metered].Fuel() != instances[Canonical].Fuel() {
				t.Errorf("%s/%s: fuel %d with canonical NaNs", k.Language, k.Name, instances[Canonical].Fuel())
			}
		}
	}
}

const cdir = "testdata/ckernels/"

// sums returns what SHA256SUMS must contain, in the format of sha256sum.
func sums(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"kernels.c", "kernels.wasm"} {
		data, err := os.ReadFile(cdir + name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		b.WriteString(hex.EncodeToString(sum[:]) + "  " + name + "\n")
	}
	return b.String()
}

func TestCKernelsBelongToTheirSource(t *testing.T) {
	got, err := os.ReadFile(cdir + "SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != sums(t) {
		t.Error("kernels.c changed since kernels.wasm was built, or the other way round: run go test -tags cguest " +
			"./host/internal/metering/kernels -update")
	}
}

func start(t testing.TB, language string, variants []Variant) map[Variant]*Instance {
	t.Helper()
	module, err := Module(language)
	if err != nil {
		t.Fatal(err)
	}
	all := map[Variant]*Instance{}
	for _, v := range variants {
		i, err := Start(t.Context(), module, v)
		if err != nil {
			t.Fatalf("%s %s: %v", language, v, err)
		}
		t.Cleanup(i.Close)
		all[v] = i
	}
	return all
}

// round is about how long a variant of a kernel runs before the next one gets its turn.
const round = 2 * time.Millisecond

// BenchmarkKernels runs the variants of each kernel in turns. It reports their processor times as
// ratios to the plain variant's, and then the mean and the worst of all. Times are the first quartile,
// as disturbances only add to a run. A number that ends in -mean is the mean over all kernels, or,
// for canonical, over those with floats. The other kernels have the same code in both variants, at
// other addresses, which changes short loops by up to a third: so metered is the mean of both.
func BenchmarkKernels(b *testing.B) {
	ratios := map[Variant][]float64{}
	for _, language := range []string{"go", "c"} {
		instances := start(b, language, Variants)
		for _, k := range All {
			if k.Language != language {
				continue
			}
			b.Run(k.Language+"/"+k.Name, func(b *testing.B) {
				times, n := compare(b, instances, k.Name)
				plain := quartile(times[Plain])
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(plain*1e9/float64(n), "plain-ns")
				for _, v := range Variants[1:] {
					if v == Canonical && !k.Floats {
						continue
					}
					r := quartile(times[v]) / plain
					if v == Metered && !k.Floats {
						r = math.Sqrt(r * quartile(times[Canonical]) / plain)
					}
					ratios[v] = append(ratios[v], r)
					b.ReportMetric(r, string(v)+"/plain")
				}
			})
		}
	}
	b.Run("all", func(b *testing.B) {
		b.ReportMetric(0, "ns/op")
		for v, all := range ratios {
			var sum float64
			for _, r := range all {
				sum += math.Log(r)
			}
			b.ReportMetric(math.Exp(sum/float64(len(all))), string(v)+"/plain-mean")
			b.ReportMetric(slices.Max(all), string(v)+"/plain-worst")
		}
	})
}

// compare runs the variants in turns, each n times in a turn, and returns the times of the turns, in
// seconds. The variant that checks its context does less, as it would take most of the time.
func compare(b *testing.B, instances map[Variant]*Instance, name string) (times map[Variant][]float64, n int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	run := func(v Variant) float64 {
		share := 1
		if v == ContextDone {
			share = min(8, n)
		}
		start := threadTime()
		if _, err := instances[v].Run(name, n/share); err != nil {
			b.Fatalf("%s %s: %v", name, v, err)
		}
		return (threadTime() - start).Seconds() * float64(share)
	}
	for n = 8; min(run(Plain), run(Plain), run(Plain)) < round.Seconds(); n *= 2 {
	}
	times = map[Variant][]float64{}
	for turn := 0; b.Loop(); turn++ {
		for i := range Variants {
			v := Variants[(i+turn)%len(Variants)]
			times[v] = append(times[v], run(v))
		}
	}
	return times, n
}

func quartile(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/4]
}

// BenchmarkRewrite is the rewriter's speed on a Go guest.
func BenchmarkRewrite(b *testing.B) {
	module, err := Module("go")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(module)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := meteringtest.Rewrite(module, metering.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
