package client_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A command is sent again under its id while its outcome is unknown. The host carries it out once.
func ExampleClient_Send() {
	lost := true
	host := answer(func(w http.ResponseWriter, r *http.Request) {
		if lost { // the host committed the command, and then the connection broke
			lost = false
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, `{"service":"bank","key":"alice","command_id":"order-7","reply":{"balance":10},"version":1,"repeated":true}`)
	})
	defer host.Close()

	c, err := client.New(client.Options{URL: host.URL})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := service.Command{
		Service: "bank", Key: "alice", Type: "deposit", ID: "order-7", Data: []byte(`{"amount":10}`),
	}
	for {
		reply, err := c.Send(ctx, command)
		if service.KindOf(err) == service.KindUnknown {
			fmt.Println("no answer; sending it again")
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s is at version %d: %s\n", reply.Key, reply.Version, reply.Data)
		return
	}
	// Output:
	// no answer; sending it again
	// alice is at version 1: {"balance":10}
}

// Events are read page by page up to the end of the log.
func ExampleClient_Events() {
	host := answer(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"events":[{"id":"c1","source":"/services/bank","type":"deposited","subject":"alice",`+
			`"time":"2026-01-31T08:00:00Z","datacontenttype":"application/json","data":{"amount":10},`+
			`"entityversion":1,"position":1}],"next":"c1","more":false}`)
	})
	defer host.Close()

	c, err := client.New(client.Options{URL: host.URL})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	s := service.Selection{Service: "bank", Types: []service.Type{"deposited"}}
	for more := true; more; {
		page, err := c.Events(context.Background(), s, 100)
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range page.Events {
			fmt.Printf("%d %s %s %s\n", e.Position, e.Key, e.Type, e.Data)
		}
		s.From, more = service.AfterCursor(page.Next), page.More
	}
	// Output: 1 alice deposited {"amount":10}
}

// answer is a host that answers all requests with handle.
func answer(handle http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(handle)
	s.Config.ErrorLog = log.New(discard{}, "", 0)
	s.Start()
	return s
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
