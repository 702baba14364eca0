package host_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// strict is a counter whose commands and queries have schemas.
func strict(input string) []byte {
	m := testguest.CounterManifest("tally")
	for i := range m.Commands {
		m.Commands[i].Input = input
	}
	m.Queries[0].Input = `{"type":"object","properties":{"at":{"type":"integer"}},"additionalProperties":false}`
	return testguest.CounterWith(m.AppendJSON(nil), nil)
}

const byInput = `{"type":"object","properties":{"by":{"type":"integer","minimum":0}},"required":["by"],"additionalProperties":false}`

func wantPlace(t *testing.T, what string, err error, pointer string) {
	t.Helper()
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindInvalid || e.Pointer == nil || *e.Pointer != pointer ||
		e.Service != "tally" {
		t.Errorf("%s: %+v; want the place %q", what, err, pointer)
	}
}

// An embedding program gets what every client gets: data that does not match its schema is refused with the
// place, in whatever way it is sent, and nothing is written.
func TestCommandsAreHeldToTheirSchemas(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", strict(byInput))
	command := func(data string) service.Command {
		c := add("a")
		c.Data, c.ID = []byte(data), "the-one"
		return c
	}
	for data, pointer := range map[string]string{
		`{}`: "/by", `null`: "", ``: "/by", `{"By":3}`: "/By", `{"by":"3"}`: "/by", `{"by":1,"note":"x"}`: "/note", `{"by":-1}`: "/by", `{"by":1,"by":2}`: "/by", `{"by":`: "/by", `7`: "",
		`{"by":-1e999999999}`: "/by", `{"by":1.5}`: "/by",
	} {
		_, err := h.Send(t.Context(), command(data))
		wantPlace(t, data, err, pointer)
	}
	done := make(chan error, 1)
	if err := h.SendAsync(command(`{"by":true}`), func(_ service.Reply, err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	wantPlace(t, "asynchronously", <-done, "/by")
	_, err := h.Query(t.Context(), service.Query{Service: "tally", Key: "a", Type: "count", Data: []byte(`{"At":1}`)})
	wantPlace(t, "a query", err, "/At")
	if q, err := h.Query(t.Context(), service.Query{Service: "tally", Key: "a", Type: "count"}); err != nil ||
		string(q.Data) != "0" {
		t.Errorf("a query without data: %s, %v", q.Data, err)
	}
	if head, err := h.Head("tally"); err != nil || head != 0 {
		t.Errorf("the log ends at %d, %v", head, err)
	}
	if r, err := h.Send(t.Context(), command(`{"by":1e999999999}`)); err != nil || r.Repeated || r.Version != 1 {
		t.Errorf("what fits, under an id that was refused: %+v, %v", r, err)
	}
}

// The schema of the running module applies: a failed deployment changes nothing, a successful one does, a
// restart does not. A repeated id gets its first answer under any schema.
func TestTheSchemaIsThatOfTheRunningModule(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	first := add("a")
	first.ID, first.Data = "first", []byte(`{"anything":1}`)
	h.MustSend(first)
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: strict(`{"$ref":"http://example.com/x"}`)})
	if service.KindOf(err) != service.KindBadModule || !strings.Contains(err.Error(), `of the command "add", cannot be used: it refers to "http://example.com/x"`) {
		t.Errorf("a schema that refers outside: %v", err)
	}
	if _, err := h.Upload(t.Context(), strict(`{"pattern":"("}`), nil); service.KindOf(err) != service.KindBadModule {
		t.Errorf("an upload: %v", err)
	}
	second := add("a")
	second.Data = []byte(`{"anything":2}`)
	h.MustSend(second)
	h.MustDeploy("tally", strict(byInput))
	for range 2 {
		_, err = h.Send(t.Context(), second)
		wantPlace(t, "after the deployment", err, "/anything")
		if r := h.MustSend(first); !r.Repeated || r.Version != 1 {
			t.Errorf("the first command again: %+v", r)
		}
		h.Restart()
	}
	h.MustDeploy("tally", strict(`true`))
	h.MustSend(second)
	h.MustDeploy("tally", strict(`false`))
	_, err = h.Send(t.Context(), second)
	wantPlace(t, "a command that takes no data", err, "")
}
