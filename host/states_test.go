package host_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// unverified makes a host deploy modules that cannot read what is in the log.
func unverified(o *host.Options) { o.Verify.Mode = service.VerifyNone }

// ofSchema is the manifest of a build of the counter with a state schema.
func ofSchema(version string, schema uint32) []byte {
	m := testguest.CounterManifest("tally")
	m.Version, m.StateSchema = version, schema
	return m.AppendJSON(nil)
}

// unable is a build of the counter that answers each Open like this.
func unable(version string, schema uint32, l testguest.Liar) []byte {
	l.Manifest = ofSchema(version, schema)
	return l.Bytes()
}

// forgetful is a host with a tally whose entities k0 to k2 have lost events.
func forgetful(t *testing.T) *hosttest.Host {
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	h.MustDeploy("tally", testguest.CounterWith(ofSchema("1", 1), nil))
	for range 2 {
		for i := range 3 {
			h.MustSend(add(service.Key(fmt.Sprint("k", i))))
		}
	}
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 6}); err != nil || done.First != 6 {
		t.Fatalf("%+v, %v", done, err)
	}
	return h
}

// couldNotBringBack deploys a module that is refused for these reasons; the earlier one goes on.
func couldNotBringBack(t *testing.T, h *hosttest.Host, module []byte, parts ...string) {
	t.Helper()
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: module})
	if service.KindOf(err) != service.KindConflicting {
		t.Fatalf("got %v", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v; it does not say %q", err, part)
		}
	}
}

func wantCounts(t *testing.T, h *hosttest.Host, want string) {
	t.Helper()
	for i := range 3 {
		q, err := h.Query(t.Context(), service.Query{Service: "tally", Key: service.Key(fmt.Sprint("k", i)),
			Type: "count"})
		if err != nil || string(q.Data) != want {
			t.Errorf("k%d counts %s, %v; want %s", i, q.Data, err, want)
		}
	}
}

// A module that does not take the snapshots of entities whose events are deleted is refused before anything
// is changed, and one of the entities is named. Other entities do not matter.
func TestAModuleMustTakeWhatIsLeftOfEntities(t *testing.T) {
	t.Parallel()
	h := forgetful(t)
	other := testguest.CounterWith(ofSchema("2", 2), nil)
	couldNotBringBack(t, h, other, `entity "k0", whose events up to version 2 are deleted`, "of state schema 1, and the module has 2",
		"3 of 3 such entities")
	wantCounts(t, h, "2")
	refusal := abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault}, abi.CodeBadSnapshot, "not my form")
	couldNotBringBack(t, h, unable("3", 1, testguest.Liar{Answers: map[abi.RequestKind][]byte{abi.ReqOpen: refusal}}),
		`entity "k0"`, "bad_snapshot", "not my form", "the snapshots of 3 were looked at")
	couldNotBringBack(t, h,
		unable("4", 1, testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqOpen: testguest.Unreachable}}),
		`entity "k0"`, "unreachable", "the snapshots of 3 were looked at")
	wantCounts(t, h, "2")
	if st, err := h.Status("tally"); err != nil || st.Counters.Resets != 0 || !st.Faults.IsZero() {
		t.Errorf("%+v, %v", st, err)
	}
	h.MustDeploy("tally", testguest.CounterWith(ofSchema("5", 1), nil))
	wantCounts(t, h, "2")
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	couldNotBringBack(t, h, other, `entity "k0"`)
	h.MustDeploy("tally", testguest.CounterWith(ofSchema("1", 1), nil))
	wantCounts(t, h, "2")
	h.Restart()
	couldNotBringBack(t, h, other, `entity "k0"`)
	wantCounts(t, h, "2")

	// Where all events are there, a module may have another schema.
	whole := hosttest.New(t)
	whole.MustDeploy("tally", testguest.CounterWith(ofSchema("1", 1), nil))
	for i := range 3 {
		whole.MustSend(add(service.Key(fmt.Sprint("k", i))))
	}
	whole.MustDeploy("tally", other)
	wantCounts(t, whole, "1")
}

// The check gives up its own turn before it starts a guest that needs turns to initialise, as guests in Go do.
func TestAGoModuleTakesWhatIsLeftOfEntities(t *testing.T) {
	t.Parallel()
	raced.Skip(t, "it compiles Go guests")
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	module := hosttest.Guest(t, "counter")
	h.MustDeploy("counter", module)
	for range 3 {
		h.MustSend(service.Command{Service: "counter", Key: "k", Type: "add", ID: service.NewCommandID(),
			Data: []byte(`{"by":2}`)})
	}
	if done, err := h.Retain(t.Context(), "counter", service.Retention{Before: 3}); err != nil || done.First != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // in place of a test that hangs
	defer cancel()
	section := []byte{0, 2, 1, 'x'} // a custom section, which makes it another build
	another := slices.Concat(module, section)
	if _, err := h.Deploy(ctx, service.Deployment{Service: "counter", Module: another}); err != nil {
		t.Fatal(err)
	}
	q, err := h.Query(t.Context(), service.Query{Service: "counter", Key: "k", Type: "value"})
	if err != nil || string(q.Data) != `{"value":6}` {
		t.Errorf("got %s, %v", q.Data, err)
	}
}

// Events that a retention deletes while the next module waits for the old one to end count, too.
func TestARetentionDuringTheSwap(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	h.MustDeploy("tally", testguest.CounterWith(ofSchema("1", 1), nil))
	for i := range 3 {
		h.MustSend(add(service.Key(fmt.Sprint("k", i))))
	}
	h.MustSend(add("other"))
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally",
		Module: testguest.CounterWith(ofSchema("2", 2), nil), Progress: func(p service.Progress) {
			if p.Stage == "draining" {
				if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 4}); err != nil ||
					done.First != 4 {
					t.Errorf("%+v, %v", done, err)
				}
			}
		}})
	if service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), `entity "k0"`) {
		t.Errorf("got %v", err)
	}
	wantCounts(t, h, "1")
	h.MustSend(add("k0"))
}

// So does a retention that deletes no event from the log, but puts a snapshot in the place of kept events.
func TestKeptEventsAreReplacedDuringTheSwap(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	h.MustDeploy("tally", weakly("1", testguest.Weaknesses{NaNAt: 1}))
	h.MustSend(add("nan"))
	retain := func(kept int) {
		t.Helper()
		if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2}); err != nil || done.First != 2 ||
			done.Kept != kept || done.Batches == 0 {
			t.Errorf("%+v, %v", done, err)
		}
	}
	retain(1)
	h.MustSend(add("nan")) // its state can be encoded again
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally",
		Module: testguest.CounterWith(ofSchema("2", 2), nil), Progress: func(p service.Progress) {
			if p.Stage == "draining" {
				retain(0)
			}
		}})
	if service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), `entity "nan"`) {
		t.Errorf("got %v", err)
	}
	if got, err := count(t.Context(), h, "nan"); err != nil || got != "2" {
		t.Errorf("it counts %s, %v", got, err)
	}
}

// A retention that has checked the snapshots of one module deletes nothing if another module is deployed
// meanwhile, which could not take them.
func TestADeploymentDuringARetention(t *testing.T) {
	t.Parallel()
	const entities = 257 // the retention reports when it has checked all but the last
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	h.MustDeploy("tally", testguest.CounterWith(ofSchema("1", 1), nil))
	for i := range entities {
		h.MustSend(add(service.Key(fmt.Sprintf("k%03d", i))))
	}
	retain := func(progress func(service.Progress)) (journal.Retained, error) {
		return h.Retain(t.Context(), "tally", service.Retention{Before: entities + 1, Progress: progress})
	}
	deployed := false
	done, err := retain(func(p service.Progress) {
		if p.Stage == "checking snapshots" && p.Done == entities-1 && !deployed {
			deployed = true
			h.MustDeploy("tally", testguest.CounterWith(ofSchema("2", 2), nil))
		}
	})
	if !deployed || service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), "another module") {
		t.Errorf("got %+v, %v", done, err)
	}
	first := func(want string) {
		t.Helper()
		q, err := h.Query(t.Context(), service.Query{Service: "tally", Key: "k000", Type: "count"})
		if err != nil || string(q.Data) != want {
			t.Errorf("got %s, %v; want %s", q.Data, err, want)
		}
	}
	first("1")
	if done, err = retain(nil); err != nil || done.First != entities+1 { // with snapshots of the running module
		t.Errorf("got %+v, %v", done, err)
	}
	first("1")
}

// tallies is a host that promises no answers, and deploys modules as a tally with a snapshot after each
// event. It does not verify them, so that they may be unable.
func tallies(t *testing.T) (h *hosttest.Host, deploy func(module []byte)) {
	h = hosttest.New(t, unverified, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	return h, func(module []byte) {
		t.Helper()
		_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: module,
			Settings: service.Settings{SnapshotEvery: 1}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// refusing is a host with two entities, whose service runs a second build that refuses all snapshots.
func refusing(t *testing.T) (h *hosttest.Host, deploy func(module []byte)) {
	t.Helper()
	h, deploy = tallies(t)
	deploy(testguest.CounterWith(ofSchema("1", 1), nil))
	h.MustSend(add("k0"))
	h.MustSend(add("k1"))
	refusal := abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault}, abi.CodeBadSnapshot, "not my form")
	deploy(unable("2", 1, testguest.Liar{Answers: map[abi.RequestKind][]byte{abi.ReqOpen: refusal}}))
	return h, deploy
}

// A retention counts only snapshots of the running module: another build may use another form under the same
// schema, and then only the events help.
func TestARetentionTrustsNoOtherBuild(t *testing.T) {
	h, deploy := refusing(t)
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2, MaxKept: -1}); service.KindOf(
		err) != service.KindConflicting {
		t.Errorf("%+v, %v", done, err)
	}
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2}); err != nil || done.First != 2 ||
		done.Kept != 1 || done.KeptEvents != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	deploy(testguest.CounterWith(ofSchema("3", 1), nil))
	for _, key := range []service.Key{"k0", "k1"} {
		if got, err := count(t.Context(), h, key); err != nil || got != "1" {
			t.Errorf("%s counts %s, %v", key, got, err)
		}
	}
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 3}); err != nil || done.First != 3 ||
		done.Kept != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// A module has limited time to open snapshots. Snapshots that it has not reached are no reason to refuse it;
// those it has opened are.
func TestSnapshotsAreOpenedForAWhile(t *testing.T) { // not beside others, as it measures time
	h := hosttest.New(t, unverified, func(o *host.Options) {
		o.Journal.AnswerWindow = time.Nanosecond
		o.OpenTime = 50 * time.Millisecond
	})
	h.MustDeploy("tally", testguest.CounterWith(ofSchema("1", 1), nil))
	for i := range 3 {
		h.MustSend(add(service.Key(fmt.Sprint("k", i))))
	}
	h.MustSend(add("last"))
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 4}); err != nil || done.First != 4 {
		t.Fatalf("%+v, %v", done, err)
	}
	spin := unable("2", 1,
		testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqOpen: testguest.Code(testguest.Loop(testguest.Br(0)),
			testguest.I64Const(0))}})
	endless := service.Limits{Fuel: 1 << 50, CallTime: time.Hour}
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: spin,
		Limits: endless}); err != nil {
		t.Errorf("a module that is too slow to be judged: %v", err)
	}
	patient := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	patient.MustDeploy("tally", testguest.CounterWith(ofSchema("1", 1), nil))
	patient.MustSend(add("k0"))
	patient.MustSend(add("last"))
	if done, err := patient.Retain(t.Context(), "tally", service.Retention{Before: 2}); err != nil || done.First != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var gone time.Time
	_, err := patient.Deploy(ctx, service.Deployment{Service: "tally", Module: spin, Limits: endless,
		Progress: func(p service.Progress) {
			if p.Stage == "describing" && p.Done == p.Total { // the last stage before the snapshots
				gone = time.Now().Add(50 * time.Millisecond)
				time.AfterFunc(time.Until(gone), cancel)
			}
		}})
	if service.KindOf(err) != service.KindCanceled || gone.IsZero() || time.Since(gone) > 5*time.Second {
		t.Errorf("its deployer has gone: %v, %v later", err, time.Since(gone))
	}
	if r := patient.MustSend(add("k0")); string(r.Data) != "2" {
		t.Errorf("the old module goes on with %s", r.Data)
	}
}

// An entity that the running module cannot restore either is no reason to refuse the next one: otherwise
// nothing could be deployed.
func TestWhatIsLostAlreadyRefusesNoModule(t *testing.T) {
	t.Parallel()
	h, deploy := tallies(t)
	deploy(testguest.CounterWith(ofSchema("1", 1), nil))
	for i := range 3 {
		h.MustSend(add(service.Key(fmt.Sprint("k", i))))
	}
	fault := testguest.Liar{Answers: map[abi.RequestKind][]byte{
		abi.ReqOpen: abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault}, abi.CodeBadSnapshot, "not my form")}}
	trap := testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqOpen: testguest.Unreachable}}
	deploy(unable("2", 1, fault))
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 4, Force: true}); err != nil ||
		done.First != 4 {
		t.Fatalf("%+v, %v", done, err)
	}
	deploy(unable("3", 1, trap))
	deploy(unable("4", 1, fault))
	deploy(testguest.CounterWith(ofSchema("5", 1), nil))
	wantCounts(t, h, "1")
	couldNotBringBack(t, h, unable("6", 1, fault), `entity "k0"`, "not my form")
}
