package hostile

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

var only = flag.String("attack", "", "measure this attack alone")

func TestMain(m *testing.M) {
	if names := os.Getenv(attackerNames); names != "" {
		beAttacker(strings.Split(names, ","))
		return
	}
	code := m.Run()
	hosttest.RemoveBuilt()
	os.Exit(code)
}

// stall is three times what a neighbour may feel at its 99th percentile: in so short a run one stall of the
// machine is that percentile. If the neighbour is as slow without the attack, the factor of the benchmark
// applies. The figures themselves are the benchmark's.
const stall = 30 * time.Millisecond

// Beside each hostile guest or client a neighbour loses nothing, and does not wait for it. The runs are
// short, and print what they measured.
func TestNeighbours(t *testing.T) {
	raced.Skip(t, "it runs other processes only")
	beside := prove.Time(t, time.Second, 5*time.Second)
	for _, a := range attacks() {
		if *only != "" && a.name != *only {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			var r result
			for range 3 { // a busy machine may stall for other reasons
				r = run(t, a, rounds{alone: beside / 3, beside: beside})
				t.Log(r)
				if r.held() || r.beside.quantile(.99) <= stall {
					return
				}
			}
			t.Errorf("the neighbour waited for %s: %v", a.name, r.beside)
		})
	}
}

// BenchmarkNeighbours measures each attack: the worst of its runs counts.
func BenchmarkNeighbours(b *testing.B) {
	for _, a := range attacks() {
		if *only != "" && a.name != *only {
			continue
		}
		b.Run(a.name, func(b *testing.B) {
			var worst result
			held, repeated := 0, 0
			for b.Loop() {
				r := run(b, a, rounds{alone: 2 * time.Second, beside: 4 * time.Second})
				repeated += r.repeated
				if r.held() {
					held++
				}
				if worst.beside == nil || r.beside.quantile(.99) > worst.beside.quantile(.99) {
					worst = r
				}
			}
			b.ReportMetric(ms(worst.alone.quantile(.5)), "ms-p50-alone")
			b.ReportMetric(ms(worst.alone.quantile(.99)), "ms-p99-alone")
			b.ReportMetric(ms(worst.beside.quantile(.5)), "ms-p50-beside")
			b.ReportMetric(ms(worst.beside.quantile(.99)), "ms-p99-beside")
			b.ReportMetric(ms(worst.beside.quantile(1)), "ms-max-beside")
			b.ReportMetric(float64(held)/float64(b.N), "held")
			b.ReportMetric(float64(repeated), "repeated-alone")
		})
	}
}
