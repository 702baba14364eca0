package host_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A sample has the types that are left only in events that a retention has kept.
func TestASampleHasKeptEvents(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) {
		o.Journal.AnswerWindow = 1
		o.Verify = service.Verify{Entities: 1, Time: 1, Commands: 1}
	})
	old := func(m *abi.Manifest) { m.Events = []abi.EventType{{Name: "old"}} }
	both := func(m *abi.Manifest) { m.Events = []abi.EventType{{Name: "added", Aliases: []string{"old"}}} }
	h.MustDeploy("tally", changed("1", testguest.Weaknesses{NaNAt: 1}, old))
	h.MustSend(add("kept"))
	h.MustDeploy("tally", changed("2", testguest.Weaknesses{NaNAt: 1}, both))
	for i := range 9 {
		h.MustSend(add(service.Key(fmt.Sprint("k", i))))
		h.MustSend(add(service.Key(fmt.Sprint("k", i))))
	}
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2}); err != nil || done.KeptEvents != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	st := h.MustDeploy("tally", changed("3", testguest.Weaknesses{NaNAt: 1}, both))
	if v := st.Verification; v.Entities != 3 || v.OfTypes != 2 { // kept, k0, k8
		t.Errorf("%+v", v)
	}
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally",
		Module: changed("4", testguest.Weaknesses{NaNAt: 1, FaultAt: 1}, both)})
	refusedWith(t, err, service.KindConflicting, `its event of type "added" at version 1`)
	// If the module makes nothing of the kept event alone, that event is named.
	odd := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = 1 })
	odd.MustDeploy("tally", changed("1", testguest.Weaknesses{NaNAt: 3}, old))
	for range 3 {
		odd.MustSend(add("kept"))
	}
	odd.MustDeploy("tally", changed("2", testguest.Weaknesses{NaNAt: 3}, both))
	odd.MustSend(add("k"))
	if done, err := odd.Retain(t.Context(), "tally", service.Retention{Before: 4}); err != nil || done.KeptEvents != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	_, err = odd.Deploy(t.Context(), service.Deployment{Service: "tally",
		Verify: service.Verify{Entities: 1, Time: 1, Commands: 1},
		Module: changed("3", testguest.Weaknesses{NaNAt: 3, FaultAt: 3}, both)})
	refusedWith(t, err, service.KindConflicting, `entity "kept"`, `its event of type "old" at version 3, position 3`)
}

// An entity that both modules can read only from a snapshot refuses neither another module nor other limits. A
// module that does not take the snapshot is refused.
func TestWhatOnlyASnapshotKeepsReadable(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	d := service.Deployment{Service: "tally", Module: changed("1", testguest.Weaknesses{}, nil),
		Settings: service.Settings{SnapshotEvery: 2}}
	deploy := func() (*service.Verification, error) {
		t.Helper()
		st, err := h.Deploy(t.Context(), d)
		return st.Verification, err
	}
	if _, err := deploy(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		h.MustSend(add("k"))
	}
	h.Restart() // the snapshot is on disk
	weak := testguest.Weaknesses{FaultAt: 2}
	d.Module, d.Verify.Mode = changed("2", weak, nil), service.VerifyNone
	if _, err := deploy(); err != nil {
		t.Fatal(err)
	}
	if r := h.MustSend(add("k")); string(r.Data) != "5" {
		t.Fatalf("it counts %s", r.Data)
	}
	d.Verify.Mode = service.VerifyAll
	for range 2 {
		for _, version := range []string{"2", "3"} {
			d.Module, d.Limits.Fuel = changed(version, weak, nil), d.Limits.Fuel+10_000_000
			v, err := deploy()
			if err != nil || v.Unreadable != 1 || !strings.Contains(v.FirstUnreadable, `entity "k"`) {
				t.Errorf("%s: %+v, %v", version, v, err)
			}
		}
	}
	d.Module = changed("4", weak, func(m *abi.Manifest) { m.StateSchema = 7 })
	_, err := deploy()
	refusedWith(t, err, service.KindConflicting, `entity "k"`, "version 2")
	if r := h.MustSend(add("k")); string(r.Data) != "6" {
		t.Errorf("it counts %s", r.Data)
	}
}

// An entity that is not of the sample, and cannot be read for a command that runs again, refuses the module.
func TestWhatCommandsShowOfEntities(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	d := service.Deployment{Service: "tally", Module: changed("1", testguest.Weaknesses{}, nil),
		Settings: service.Settings{OmitCommandData: true}}
	send := func(key service.Key) {
		c := add(key)
		c.Data = []byte(`{}`)
		h.MustSend(c)
	}
	for range 2 {
		if _, err := h.Deploy(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		for _, key := range []service.Key{"a", "odd", "odd", "odd", "z"} {
			send(key)
		}
		d.Settings.OmitCommandData = false
	}
	d.Verify = service.Verify{Entities: 1, Time: 1}
	d.Module = changed("2", testguest.Weaknesses{FaultAt: 3}, nil)
	_, err := h.Deploy(t.Context(), d)
	refusedWith(t, err, service.KindConflicting, `entity "odd": the module cannot apply its event of type "added" at version 3`)
	d.Module = changed("3", testguest.Weaknesses{}, nil)
	st, err := h.Deploy(t.Context(), d)
	if v := st.Verification; err != nil || v.Entities != 2 || v.Commands.Same != 5 || v.Commands.NotRun != 5 {
		t.Errorf("%+v, %v", v, err)
	}
}

// A recorded command that is larger than the new limits is one that is decided otherwise.
func TestACommandBeyondNewLimitsIsDifferent(t *testing.T) {
	t.Parallel()
	h := tallied(t)
	large := service.Command{Service: "tally", Key: "k0", Type: "echo",
		Data: fmt.Appendf(nil, "%q", bytes.Repeat([]byte("x"), 2000))}
	h.MustSend(large)
	st, err := h.Deploy(t.Context(), service.Deployment{Service: "tally",
		Module: changed("2", testguest.Weaknesses{}, nil),
		Limits: service.Limits{CommandBytes: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	if v := st.Verification.Commands; v.Same != 6 || v.Different != 1 || v.NotRun != 0 ||
		!strings.HasPrefix(v.First[0].After.Problem, "too_large: ") {
		t.Errorf("%+v", v)
	}
}

// A recorded command whose data the new module's schema does not take is decided otherwise.
func TestACommandThatNewSchemasRefuseIsDifferent(t *testing.T) {
	t.Parallel()
	h := tallied(t)
	st := h.MustDeploy("tally", changed("2", testguest.Weaknesses{}, func(m *abi.Manifest) {
		m.Commands[testguest.CounterAdd].Input = `{"type":"object","required":["by"]}`
	}))
	if v := st.Verification.Commands; v.Same != 0 || v.Different != 6 ||
		!strings.HasPrefix(v.First[0].After.Problem, "invalid: there is no data, and the data lacks the member") {
		t.Errorf("%+v", v)
	}
}

// Events are the same if the module reads both as the same type.
func TestTypesAreTheSameAsTheModuleReadsThem(t *testing.T) {
	t.Parallel()
	for name, events := range map[string][]abi.EventType{
		"alias":    {{Name: "counted", Aliases: []string{"added"}}},
		"upcaster": {{Name: "counted"}, {Name: "added", UpcastTo: "between"}, {Name: "between", UpcastTo: "counted"}},
	} {
		h := tallied(t)
		st := h.MustDeploy("tally", changed("2", testguest.Weaknesses{}, func(m *abi.Manifest) { m.Events = events }))
		if v := st.Verification.Commands; v.Same != 6 || v.Different != 0 {
			t.Errorf("%s: %+v", name, v)
		}
	}
	h := tallied(t)
	other := []abi.EventType{{Name: "counted"}, {Name: "added"}}
	st := h.MustDeploy("tally", changed("2", testguest.Weaknesses{}, func(m *abi.Manifest) { m.Events = other }))
	if v := st.Verification.Commands; v.Same != 0 || v.Different != 6 ||
		v.First[0].After.String() != "counted {}, reply 1" {
		t.Errorf("another type: %+v", v)
	}
}

// Commands without events run again, too: the first and the last of the log.
func TestCommandsWithoutEventsRunAgain(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", changed("1", testguest.Weaknesses{}, nil))
	nop := service.Command{Service: "tally", Key: "k", Type: "nop"}
	version := 1
	verify := func(commands int, want uint64) {
		t.Helper()
		version++
		st, err := h.Deploy(t.Context(), service.Deployment{Service: "tally",
			Module: changed(fmt.Sprint(version), testguest.Weaknesses{}, nil),
			Verify: service.Verify{Commands: commands}})
		if err != nil || st.Verification.Commands.Same != want || st.Verification.Commands.Different > 0 {
			t.Errorf("%+v, %v; want %d commands", st.Verification, err, want)
		}
	}
	h.MustSend(nop)
	verify(0, 0) // there is no event, and so no entity
	h.MustSend(nop)
	h.MustSend(add("k"))
	h.MustSend(nop)
	h.MustSend(add("other"))
	h.MustSend(nop)
	verify(0, 6)
	for range 30 {
		h.MustSend(add("k"))
		h.MustSend(nop)
	}
	verify(66, 66)
	verify(8, 8)
	verify(1, 1)
}

// A sample has an entity for each schema of the snapshots that stand for deleted events.
func TestASampleHasEverySchema(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) {
		o.Journal.AnswerWindow = 1
		o.Verify = service.Verify{Entities: 1, Time: 1, Commands: 1}
	})
	build := func(version string, weak testguest.Weaknesses, schema uint32, earlier ...uint32) []byte {
		return changed(version, weak, func(m *abi.Manifest) {
			m.StateSchema, m.EarlierSchemas = schema, earlier
			if len(earlier) > 0 {
				m.Features = append(m.Features, abi.FeatureEarlierSchemas)
			}
		})
	}
	h.MustDeploy("tally", build("1", testguest.Weaknesses{}, 1))
	for _, key := range []service.Key{"a1", "b1", "c1"} {
		h.MustSend(add(key))
	}
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 4}); err != nil || done.First != 4 {
		t.Fatalf("%+v, %v", done, err)
	}
	h.MustDeploy("tally", build("2", testguest.Weaknesses{}, 2, 1))
	for _, key := range []service.Key{"a2", "b2", "c2"} {
		h.MustSend(add(key))
	}
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 7}); err != nil || done.First != 7 {
		t.Fatalf("%+v, %v", done, err)
	}
	for _, key := range []service.Key{"first", "second", "last"} {
		h.MustSend(add(key))
	}
	st := h.MustDeploy("tally", build("3", testguest.Weaknesses{}, 3, 2, 1))
	if v := st.Verification; v.Entities != 4 { // first, last, and one of each schema
		t.Errorf("%+v", v)
	}
}
