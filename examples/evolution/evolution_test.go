package evolution_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

const packages = "github.com/bulkhead-wasm/bulkhead/examples/evolution/"

// The five versions take over from each other, over one log. A version that would lose what is in the log does not.
func TestFiveVersionsOverOneLog(t *testing.T) {
	raced.Skip(t, "it compiles Go guests, and the tests of host have its concurrency")
	h := evolution{t, hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })}

	h.deploy("v1")
	h.scan("P-1", `{"place":"Lyon, FR"}`)
	h.scan("P-2", `{"place":"depot"}`)
	h.track("P-1", `{"places":["Lyon, FR"]}`)

	h.deploy("v2")
	h.track("P-1", `{"places":["Lyon, FR"]}`)
	h.scan("P-1", `{"place":"Bern, CH","grams":900}`)
	h.track("P-1", `{"places":["Lyon, FR","Bern, CH"],"grams":900}`)

	h.refused(without(t, "v3", `, "scanned"`), `3 events of type "scanned"`)
	h.track("P-1", `{"places":["Lyon, FR","Bern, CH"],"grams":900}`) // v2 still answers

	h.deploy("v3")
	h.scan("P-1", `{"place":"Graz, AT"}`)
	h.track("P-1", `{"places":["Lyon, FR","Bern, CH","Graz, AT"],"grams":900}`)
	h.track("P-2", `{"places":["depot"]}`)

	h.deploy("v4")
	h.track("P-1", `{"places":["Lyon, FR","Bern, CH","Graz, AT"],"grams":900}`)
	h.scan("P-1", `{"place":"Wien,AT","grams":905}`)
	h.track("P-1", `{"places":["Lyon, FR","Bern, CH","Graz, AT","Wien, AT"],"grams":905}`)
	h.track("P-2", `{"places":["depot"]}`)

	// P-1 is left with the events of v3 and v4, and P-2 with none: snapshots of v4 stand for the others.
	h.retain(4)
	h.refused(without(t, "v5", "\n\tguest.UpcastState(Service, parcelOfV4)"), "state schema")

	h.deploy("v5")
	const stops = `{"city":"Lyon","country":"FR"},{"city":"Bern","country":"CH"},{"city":"Graz","country":"AT"},` +
		`{"city":"Wien","country":"AT"}`
	h.track("P-1", `{"stops":[`+stops+`],"borders":2,"grams":905}`)
	h.track("P-2", `{"stops":[{"city":"depot","country":""}],"borders":0}`)
	h.scan("P-1", `{"place":"Brno, CZ"}`)
	h.Restart()
	h.track("P-1", `{"stops":[`+stops+`,{"city":"Brno","country":"CZ"}],"borders":3,"grams":905}`)
	h.types("arrived", "reached", "reached") // as they were written
}

// evolution is a host with the service.
type evolution struct {
	t *testing.T
	*hosttest.Host
}

func (h *evolution) deploy(version string) {
	h.t.Helper()
	st := h.MustDeploy("parcels", hosttest.Module(h.t, packages+version))
	if st.Manifest.Version != version[1:] {
		h.t.Fatalf("%s runs as version %q", version, st.Manifest.Version)
	}
}

// refused deploys a module, which must be refused with a message that has the text want.
func (h *evolution) refused(module []byte, want string) {
	h.t.Helper()
	_, err := h.Deploy(h.t.Context(), service.Deployment{Service: "parcels", Module: module})
	if service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), want) {
		h.t.Errorf("got %v, want a refusal because of %s", err, want)
	}
}

func (h *evolution) scan(key service.Key, data string) {
	h.t.Helper()
	h.MustSend(service.Command{Service: "parcels", Key: key, Type: "scan", ID: service.NewCommandID(),
		Data: []byte(data)})
}

// track checks what the query answers.
func (h *evolution) track(key service.Key, want string) {
	h.t.Helper()
	q, err := h.Query(h.t.Context(), service.Query{Service: "parcels", Key: key, Type: "track"})
	if err != nil || string(q.Data) != want {
		h.t.Fatalf("%s is %s, %v; want %s", key, q.Data, err, want)
	}
}

func (h *evolution) retain(before journal.Position) {
	h.t.Helper()
	done, err := h.Retain(h.t.Context(), "parcels", service.Retention{Before: before})
	if err != nil || done.First != before {
		h.t.Fatalf("%+v, %v", done, err)
	}
}

// types checks the types of the events that are left in the log.
func (h *evolution) types(want ...string) {
	h.t.Helper()
	page, err := h.Events(h.t.Context(), service.Selection{Service: "parcels"}, 100)
	if err != nil {
		h.t.Fatal(err)
	}
	var got []string
	for _, e := range page.Events {
		got = append(got, e.Type)
	}
	if !slices.Equal(got, want) {
		h.t.Errorf("the events are %v, want %v", got, want)
	}
}

// without builds a version without a piece of its program.
func without(t *testing.T, version, piece string) []byte {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(version, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), piece) != 1 {
		t.Fatalf("%s does not have %q once", file, piece)
	}
	dir := t.TempDir()
	changed, overlay, module := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay"), filepath.Join(dir, "wasm")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(changed, []byte(strings.Replace(string(text), piece, "", 1)), 0o600),
		os.WriteFile(overlay, replace, 0o600),
		hosttest.GoBuild([]string{"GOOS=wasip1", "GOARCH=wasm"}, "-buildmode=c-shared", "-overlay", overlay,
			"-o", module, packages+version)); err != nil {
		t.Fatal(err)
	}
	wasm, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}
