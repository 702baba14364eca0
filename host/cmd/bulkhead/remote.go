package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// remoteFlags say which host to use.
type remoteFlags struct {
	Host  string        `placeholder:"URL" default:"http://127.0.0.1:8080" help:"Host to connect to: a URL, or a name and a port for http. Default ${default}."`
	Wait  time.Duration `placeholder:"TIME" help:"How long to wait until the host is ready. Default: not at all."`
	Token string        `placeholder:"TOKEN" help:"Access token of the host, at least 16 bytes. Set it in the environment rather than on the command line, where other users can see it."`
}

// entityArg names an entity as service/key. Everything after the first slash is the key, which may contain
// slashes.
type entityArg struct {
	service service.Name
	key     service.Key
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *entityArg) UnmarshalText(text []byte) (err error) {
	name, key, ok := strings.Cut(string(text), "/")
	if !ok {
		return fmt.Errorf("%q is not of the form service/key, such as bank/alice", text)
	}
	if a.service, err = service.ParseName(name); err != nil {
		return err
	}
	a.key, err = service.ParseKey(key)
	return err
}

// nameArg is the name of a service.
type nameArg service.Name

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *nameArg) UnmarshalText(text []byte) error {
	name, err := service.ParseName(string(text))
	*a = nameArg(name)
	return err
}

// typeArg is the name of a command, query or event.
type typeArg service.Type

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *typeArg) UnmarshalText(text []byte) error {
	kind, err := service.ParseType(string(text))
	*a = typeArg(kind)
	return err
}

// readyWaits are the waits for a host that is not ready.
var readyWaits = lifecycle.Backoff{First: 50 * time.Millisecond, Max: 500 * time.Millisecond}

// connect makes a client for the host that the flags name, and waits for the host if requested.
func (f *remoteFlags) connect(e *env) (*client.Client, error) {
	cl, err := client.New(client.Options{URL: hostURL(f.Host), Token: f.Token})
	if err != nil || f.Wait == 0 {
		return cl, err
	}
	ctx, cancel := context.WithTimeout(e.ctx, f.Wait)
	defer cancel()
	for try := 1; ; try++ {
		err := cl.Ready(ctx)
		if err == nil {
			return cl, nil
		}
		if again := service.KindOf(err) == service.KindUnavailable; !again ||
			!lifecycle.Sleep(ctx, readyWaits.Wait(try, 0)) {
			return nil, err
		}
	}
}

// hostURL completes an address without a scheme, such as localhost:8080.
func hostURL(address string) string {
	if strings.Contains(address, "://") {
		return address
	}
	return "http://" + address
}
