package host_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A program serves a host beside its own pages, on one address.
func ExampleHost_Handler() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	h, err := host.Open(ctx, host.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close(ctx)
	if _, err := h.Deploy(ctx, service.Deployment{Service: "tally", Module: testguest.Counter("tally")}); err != nil {
		log.Fatal(err)
	}

	api, err := h.Handler(host.HandlerOptions{Token: "a-token-of-16-bytes"})
	if err != nil {
		log.Fatal(err)
	}
	defer api.Stop(ctx) // before the host is closed
	mux := http.NewServeMux()
	mux.Handle("/bulkhead/", http.StripPrefix("/bulkhead", api))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a page of the program") })
	server := httptest.NewServer(mux)
	defer server.Close()

	c, err := client.New(client.Options{URL: server.URL + "/bulkhead", Token: "a-token-of-16-bytes"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	reply, err := c.Send(ctx, service.Command{Service: "tally", Key: "visits", Type: "add", ID: "visit-1",
		Data: []byte("1")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("version", reply.Version)
	// Output: version 1
}
