package host_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// banked is a host whose bank has so many accounts, each with so many events, in turns. other is another build
// of the same bank.
func banked(b *testing.B, accounts, events int) (h *hosttest.Host, other []byte) {
	h = hosttest.New(b)
	module := hosttest.Guest(b, "bank")
	h.MustDeploy("bank", module)
	var all sync.WaitGroup
	for i := range accounts * events {
		c := service.Command{Service: "bank", Key: service.Key(fmt.Sprintf("account-%07d", i%accounts)),
			Type: "deposit", Data: []byte(`{"amount":1}`)}
		if i < accounts {
			c.Type, c.Data = "open", []byte(`{"owner":"somebody"}`)
		}
		all.Add(1)
		err := h.SendAsync(c, func(_ service.Reply, err error) {
			if err != nil {
				b.Error(err)
			}
			all.Done()
		})
		if err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			all.Wait()
		}
	}
	all.Wait()
	return h, append(append([]byte(nil), module...), 0, 2, 1, 'b') // with one more custom section
}

// BenchmarkVerification measures the verification of a bank in Go against 10,000 accounts with 20 events each:
// replaying all of them, and running 50,000 recorded commands again.
func BenchmarkVerification(b *testing.B) {
	h, other := banked(b, 10_000, 20)
	verify := func(b *testing.B, v service.Verify) service.Verification {
		b.Helper()
		v.Time, v.CommandTime, v.Timeout = time.Hour, time.Hour, time.Hour
		shown, err := h.Verify(b.Context(), service.Deployment{Service: "bank", Module: other, Verify: v})
		if err != nil || !shown.Same() || shown.Commands.NotRun > 0 {
			b.Fatalf("%+v, %v", shown, err)
		}
		return shown
	}
	b.Run("replay", func(b *testing.B) {
		for b.Loop() {
			shown := verify(b, service.Verify{Entities: 10_000, Commands: 1})
			if shown.Entities != 10_000 || shown.Events != 200_000 {
				b.Fatalf("%+v", shown)
			}
			b.ReportMetric(shown.Took.Seconds(), "s-replayed")
		}
	})
	b.Run("commands", func(b *testing.B) {
		for b.Loop() {
			shown := verify(b, service.Verify{Entities: 1, Commands: 50_000})
			b.ReportMetric(float64(shown.Commands.Same)/shown.Took.Seconds(), "commands/s")
			b.ReportMetric(float64(shown.Commands.Same), "commands")
		}
	})
}

// BenchmarkDeploymentUnderLoad deploys another build of a bank in Go while its clients send half of the
// commands that it can carry out. It measures the longest time without an answer, and the 99th percentile of
// the times of a neighbour's commands, without and with the deployment. It fails if a command is lost or
// carried out twice.
func BenchmarkDeploymentUnderLoad(b *testing.B) {
	const accounts, around = 1000, time.Second
	for b.Loop() {
		h, other := banked(b, accounts, 20)
		m, err := h.Upload(b.Context(), other, nil) // this process compiles it, at the cost of what is measured
		if err != nil {
			b.Fatal(err)
		}
		h.MustDeploy("tally", testguest.Counter("tally"))
		began := time.Now()
		sent := len(load(b, h, accounts, 20_000, 0, nil))
		rate := float64(sent) / time.Since(began).Seconds() / 2
		b.ReportMetric(rate, "commands/s")
		for _, deploys := range []bool{false, true} {
			stop, answers := make(chan struct{}), make(chan []time.Time, 1)
			go func() { answers <- load(b, h, accounts, 0, rate, stop) }()
			neighbour := neighbour(b, h)
			time.Sleep(around)
			if deploys {
				d := service.Deployment{Service: "bank", Digest: m.Digest}
				st, err := h.Deploy(b.Context(), d)
				if err != nil || !st.Verification.Same() || st.Verification.Commands.Same == 0 {
					b.Errorf("%+v, %v", st.Verification, err)
				}
			} else {
				time.Sleep(3 * around)
			}
			time.Sleep(around)
			close(stop)
			all := <-answers
			sent += len(all)
			slices.SortFunc(all, time.Time.Compare)
			gap := time.Duration(0)
			for i := range all[1:] {
				gap = max(gap, all[i+1].Sub(all[i]))
			}
			name := map[bool]string{true: "-deploying", false: "-alone"}[deploys]
			b.ReportMetric(gap.Seconds()*1000, "ms-gap"+name)
			b.ReportMetric(neighbour().Seconds()*1000, "ms-p99"+name)
		}
		if n, err := h.Head("bank"); err != nil || int(n) != accounts*20+sent {
			b.Errorf("%d events of %d commands, %v", n, accounts*20+sent, err)
		}
		h.Stop()
	}
}

// load sends commands to a bank, n of them or until stop is closed: at a rate, or as fast as it can if that is
// 0. It returns when each was answered.
func load(b *testing.B, h *hosttest.Host, accounts, n int, rate float64, stop chan struct{}) (answers []time.Time) {
	var all sync.WaitGroup
	var mu sync.Mutex // guards answers
	free := make(chan struct{}, 1024)
	start := time.Now()
	for i := 0; n == 0 || i < n; i++ {
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(i) / rate * float64(time.Second)))))
			select {
			case <-stop:
				all.Wait()
				return answers
			default:
			}
		}
		free <- struct{}{}
		all.Add(1)
		err := h.SendAsync(service.Command{Service: "bank", Key: service.Key(fmt.Sprintf("account-%07d", i%accounts)),
			Type: "deposit", Data: []byte(`{"amount":1}`)}, func(_ service.Reply, err error) {
			if err != nil {
				b.Error(err)
			}
			mu.Lock()
			answers = append(answers, time.Now())
			mu.Unlock()
			<-free
			all.Done()
		})
		if err != nil {
			b.Error(err)
			<-free
			all.Done()
		}
	}
	all.Wait()
	return answers
}

// neighbour sends commands to another service, one after another, until stop is called, which returns the
// 99th percentile of their times.
func neighbour(b *testing.B, h *hosttest.Host) (stop func() time.Duration) {
	end, done := make(chan struct{}), make(chan []time.Duration, 1)
	go func() {
		var times []time.Duration
		for {
			select {
			case <-end:
				done <- times
				return
			case <-time.After(time.Millisecond):
			}
			began := time.Now()
			if _, err := h.Send(b.Context(), add("k")); err != nil {
				b.Error(err)
			}
			times = append(times, time.Since(began))
		}
	}()
	return func() time.Duration {
		close(end)
		times := <-done
		slices.Sort(times)
		return times[len(times)*99/100]
	}
}
