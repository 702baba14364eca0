package host_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// changed is a build of the counter with a changed manifest.
func changed(version string, weak testguest.Weaknesses, change func(*abi.Manifest)) []byte {
	m := testguest.CounterManifest("tally")
	m.Version = version
	if change != nil {
		change(&m)
	}
	return testguest.CounterOf(m.AppendJSON(nil), weak, nil)
}

// tallied is a host with a tally whose entities k0 to k2 count one, two and three.
func tallied(t *testing.T, change ...func(*host.Options)) *hosttest.Host {
	t.Helper()
	h := hosttest.New(t, change...)
	h.MustDeploy("tally", changed("1", testguest.Weaknesses{}, nil))
	for i := range 3 {
		for range i + 1 {
			h.MustSend(add(service.Key(fmt.Sprint("k", i))))
		}
	}
	return h
}

// refusedWith checks that a deployment is refused, and why.
func refusedWith(t *testing.T, err error, kind service.Kind, parts ...string) {
	t.Helper()
	if service.KindOf(err) != kind {
		t.Fatalf("got %v; want %v", err, kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v; it does not say %q", err, part)
		}
	}
}

// A module that cannot read what is in the log is refused, and the event is named. The old module goes on.
func TestAModuleMustReplayTheLog(t *testing.T) {
	t.Parallel()
	for name, weak := range map[string]testguest.Weaknesses{
		"fault": {FaultAt: 3}, "trap": {TrapAt: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := tallied(t)
			d := service.Deployment{Service: "tally", Module: changed("2", weak, nil)}
			where := `entity "k2": the module cannot apply its event of type "added" at version 3, position 6: ` + name
			_, err := h.Deploy(t.Context(), d)
			refusedWith(t, err, service.KindConflicting, "cannot read what is in the service's log", where)
			var own *service.Error
			if !errors.As(err, &own) || (own.Detail != "") != (name == "trap") {
				t.Errorf("the operator gets %+v", own)
			}
			_, err = h.Verify(t.Context(), d)
			refusedWith(t, err, service.KindConflicting, where)
			if r := h.MustSend(add("k2")); string(r.Data) != "4" {
				t.Errorf("the old module goes on with %s", r.Data)
			}
			if got := versions(t, h); got != "1" {
				t.Errorf("history %s", got)
			}
			// On demand nothing is verified.
			d.Verify.Mode = service.VerifyNone
			st, err := h.Deploy(t.Context(), d)
			if err != nil || st.Verification == nil || st.Verification.Mode != service.VerifyNone ||
				st.Verification.Entities != 0 {
				t.Fatalf("%+v, %v", st.Verification, err)
			}
			// What the running module cannot read either does not refuse the next one.
			st, err = h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: changed("3", weak, nil)})
			if err != nil || st.Verification.Unreadable != 1 ||
				!strings.Contains(st.Verification.FirstUnreadable, `entity "k2"`) {
				t.Errorf("%+v, %v", st.Verification, err)
			}
		})
	}
}

// A sample has the first and the last event of every type, however small its budget is.
func TestASampleHasEveryTypeOfEvent(t *testing.T) {
	t.Parallel()
	small := service.Verify{Entities: 1, Time: 1}
	h := hosttest.New(t, func(o *host.Options) { o.Verify = small })
	old := func(m *abi.Manifest) { m.Events = []abi.EventType{{Name: "old"}} }
	both := func(m *abi.Manifest) { m.Events = []abi.EventType{{Name: "added", Aliases: []string{"old"}}} }
	h.MustDeploy("tally", changed("1", testguest.Weaknesses{}, old))
	for _, key := range []service.Key{"a", "b", "odd", "odd"} {
		h.MustSend(add(key))
	}
	h.MustDeploy("tally", changed("2", testguest.Weaknesses{}, both))
	for i := range 50 {
		h.MustSend(add(service.Key(fmt.Sprint("k", i))))
	}
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally",
		Module: changed("3", testguest.Weaknesses{FaultAt: 2}, both)})
	refusedWith(t, err, service.KindConflicting,
		`entity "odd": the module cannot apply its event of type "old" at version 2`)
	st := h.MustDeploy("tally", changed("4", testguest.Weaknesses{}, both))
	if v := st.Verification; v.Entities != 4 || v.OfTypes != 2 { // a, odd, k0, k49
		t.Errorf("%+v", v)
	}
	// With all, the others are replayed, too.
	st, err = h.Deploy(t.Context(), service.Deployment{Service: "tally",
		Verify: service.Verify{Mode: service.VerifyAll}, Module: changed("5", testguest.Weaknesses{}, both)})
	if v := st.Verification; err != nil || v.Entities != 53 || v.Events != 54 || v.States.Same != 53 {
		t.Errorf("%+v, %v", v, err)
	}
}

// A module that makes another state of the same events, under the same state schema, is deployed with a
// warning, and refused if that is wanted. With another schema states are not compared.
func TestStatesAreCompared(t *testing.T) {
	t.Parallel()
	h := tallied(t)
	twice := changed("2", testguest.Weaknesses{Step: 2}, nil)
	strict := service.Verify{RequireSame: true}
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: twice, Verify: strict})
	refusedWith(t, err, service.KindConflicting, "was required", "raise StateSchema", `entity "k0" at version 1`)
	raised := changed("3", testguest.Weaknesses{Step: 2}, func(m *abi.Manifest) { m.StateSchema = 7 })
	v, err := h.Verify(t.Context(), service.Deployment{Service: "tally", Module: raised})
	if err != nil || v.States.Same != 0 || v.States.Different != 0 || v.Commands.Different != 6 {
		t.Errorf("%+v, %v", v, err)
	}
	st, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: twice})
	if err != nil || st.Verification.States.Different != 3 || len(st.Warnings) != 1 ||
		!strings.Contains(st.Warnings[0], "raise StateSchema") {
		t.Errorf("%+v, %q, %v", st.Verification, st.Warnings, err)
	}
}

// Recorded commands are run again on the states on which they ran. What is different is shown side by side,
// and refuses the module if that is wanted. Nothing is written.
func TestCommandsRunAgain(t *testing.T) {
	t.Parallel()
	h := tallied(t)
	h.MustSend(service.Command{Service: "tally", Key: "k0", Type: "echo", Data: []byte(`{"a":[1,2]}`)})
	swapped := changed("2", testguest.Weaknesses{}, func(m *abi.Manifest) {
		m.Commands[testguest.CounterAdd].Name, m.Commands[testguest.CounterAdd3].Name = "add3", "add"
	})
	before, err := h.Measure(t.Context(), "tally")
	if err != nil {
		t.Fatal(err)
	}
	d := service.Deployment{Service: "tally", Module: swapped}
	v, err := h.Verify(t.Context(), d)
	if err != nil || v.Commands.Same != 1 || v.Commands.Different != 6 || v.Commands.NotRun != 0 ||
		len(v.Commands.First) != 5 || v.States.Same != 3 {
		t.Fatalf("%+v, %v", v, err)
	}
	first := v.Commands.First[0]
	if first.Key != "k0" || first.Type != "add" || first.Version != 0 || first.Position != 1 ||
		first.Before.String() != "added {}, reply 1" ||
		first.After.String() != "added {}, added {}, added {}, reply 3" {
		t.Errorf("%+v", first)
	}
	after, err := h.Measure(t.Context(), "tally")
	if err != nil || after != before {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
	d.Verify.RequireSame = true
	_, err = h.Deploy(t.Context(), d)
	refusedWith(t, err, service.KindConflicting, "of 7 recorded commands, 6 are decided otherwise",
		`command "add" of entity "k0" at version 0, position 1: recorded is added {}, reply 1, the new module `+
			`gives added {}, added {}`)
	d.Verify.RequireSame = false
	if st, err := h.Deploy(t.Context(), d); err != nil || st.Verification.Commands.Different != 6 {
		t.Errorf("%+v, %v", st.Verification, err)
	}
	p, err := h.Deployments(t.Context(), "tally", 0, 0)
	if err != nil || p.Deployments[0].Verification == nil || p.Deployments[0].Verification.Commands.Same != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Commands whose data was not recorded are counted, and not run again. A module without a command of the type
// decides it otherwise.
func TestCommandsThatCannotRunAgain(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	d := service.Deployment{Service: "tally", Module: changed("1", testguest.Weaknesses{}, nil),
		Settings: service.Settings{OmitCommandData: true}}
	deploy := func() *service.Verification {
		t.Helper()
		st, err := h.Deploy(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		return st.Verification
	}
	send := func() {
		c := add("k")
		c.Data = []byte("{}")
		h.MustSend(c)
	}
	deploy()
	send()
	d.Settings.OmitCommandData, d.Module = false, changed("2", testguest.Weaknesses{}, nil)
	if v := deploy().Commands; v.Same != 0 || v.Different != 0 || v.NotRun != 1 {
		t.Errorf("%+v", v)
	}
	send()
	d.Module = changed("3", testguest.Weaknesses{}, func(m *abi.Manifest) {
		m.Commands[testguest.CounterAdd].Name = "sum"
	})
	if v := deploy().Commands; v.Same != 0 || v.Different != 1 || v.NotRun != 1 ||
		!strings.Contains(v.First[0].After.Problem, "no command of this type") {
		t.Errorf("%+v", v)
	}
}

// A dry run changes nothing: it stores no module, makes no service, and is not in the history.
func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	h := tallied(t)
	module := changed("2", testguest.Weaknesses{}, nil)
	v, err := h.Verify(t.Context(), service.Deployment{Service: "tally", Module: module})
	if err != nil || v.Entities != 3 || v.Events != 6 || v.Commands.Same != 6 || v.Took <= 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if got := versions(t, h); got != "1" {
		t.Errorf("history %s", got)
	}
	if _, err := h.Verify(t.Context(), service.Deployment{Service: "other", Module: module}); err == nil {
		t.Error("it is not that service")
	}
	other := testguest.Counter("other")
	if _, err := h.Verify(t.Context(), service.Deployment{Service: "other", Module: other}); err != nil {
		t.Error(err)
	}
	if all := h.Services(); len(all) != 1 {
		t.Errorf("%d services", len(all))
	}
	if all, err := h.Modules(); err != nil || len(all.Modules) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if r := h.MustSend(add("k0")); string(r.Data) != "2" {
		t.Errorf("it goes on with %s", r.Data)
	}
}

// A verification that has no time for what must be replayed refuses the module. The old module serves
// meanwhile.
func TestAVerificationTakesNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	h := tallied(t)
	served := 0
	d := service.Deployment{Service: "tally", Module: changed("2", testguest.Weaknesses{}, nil),
		Verify: service.Verify{Timeout: time.Nanosecond}}
	_, err := h.Deploy(t.Context(), d)
	refusedWith(t, err, service.KindOverloaded, "the module was not verified", "give the verification more time")
	d.Verify.Timeout = 0
	d.Progress = func(p service.Progress) {
		if p.Stage == "replaying" || p.Stage == "re-executing" {
			h.MustSend(add("k0"))
			served++
		}
	}
	st, err := h.Deploy(t.Context(), d)
	if err != nil || served != 2 || st.Verification.Commands.Different != 0 {
		t.Errorf("%d served, %+v, %v", served, st.Verification, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d = service.Deployment{Service: "tally", Module: changed("3", testguest.Weaknesses{}, nil),
		Progress: func(p service.Progress) {
			if p.Stage == "replaying" {
				cancel()
			}
		}}
	_, err = h.Deploy(ctx, d)
	refusedWith(t, err, service.KindCanceled)
	if got := versions(t, h); got != "2 1" {
		t.Errorf("history %s", got)
	}
}

// A module is verified on a host whose processors others always want.
func TestAVerificationOnABusyHost(t *testing.T) {
	t.Parallel()
	h := tallied(t)
	ctx, cancel := context.WithCancel(t.Context())
	var spinning sync.WaitGroup
	defer spinning.Wait()
	defer cancel()
	for i := range 3 {
		name := service.Name(fmt.Sprint("spinner", i))
		h.MustDeploy(name, testguest.Counter(string(name)))
		for range 2 {
			spinning.Go(func() {
				for ctx.Err() == nil {
					_, _ = h.Send(ctx, service.Command{Service: name, Key: "k", Type: "spin"})
				}
			})
		}
	}
	for i := range 3 {
		st := h.MustDeploy("tally", changed(fmt.Sprint("busy", i), testguest.Weaknesses{}, nil))
		if v := st.Verification; v.Entities != 3 || v.Commands.Same != 6 || v.States.Same != 3 {
			t.Errorf("%+v", v)
		}
	}
}
