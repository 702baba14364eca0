package flight

import (
	"errors"
	"strings"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Carriage holds the memory of one command or query: its data until the host no longer needs it, and its
// answer until that is written or dropped. It implements service.Carrier.
type Carriage struct {
	f *Account

	mu     sync.Mutex // guards all below
	data   int        // bytes taken for the data
	reply  int        // bytes taken for the answer
	landed bool       // the host no longer needs the data
	over   bool       // the answer is no longer needed
}

var _ service.Carrier = (*Carriage)(nil)

// Carry takes over the bytes that were taken for data, and takes what the call needs in addition.
func (f *Account) Carry(data, beside int) (*Carriage, error) {
	if !f.Use() {
		return nil, errOver
	}
	if err := f.Take(beside); err != nil {
		f.Leave()
		return nil, err
	}
	return &Carriage{f: f, data: data, reply: beside}, nil
}

var errOver = &service.Error{Kind: service.KindCanceled, Message: "the client has gone away"}

// Unload implements service.Carrier.
func (c *Carriage) Unload() {
	c.mu.Lock()
	c.f.Give(c.data)
	last := !c.landed && c.over
	c.data, c.landed = 0, true
	c.mu.Unlock()
	if last {
		c.f.Leave()
	}
}

// Load implements service.Carrier.
func (c *Carriage) Load(reply int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errOver
	}
	if err := c.f.Take(reply); err != nil {
		return err
	}
	c.reply += reply
	return nil
}

// Free gives back the bytes of the answer, which was written or dropped.
func (c *Carriage) Free() {
	c.mu.Lock()
	c.f.Give(c.reply)
	last := !c.over && c.landed
	c.reply, c.over = 0, true
	c.mu.Unlock()
	if last {
		c.f.Leave()
	}
}

// maxErrorText is how many bytes of an error's texts are covered by CallBytes.
const maxErrorText = 256

// Fit takes memory for the texts of an error, which may be a guest's, or shortens them.
func (c *Carriage) Fit(err error) error {
	var e *service.Error
	if !errors.As(err, &e) {
		return err
	}
	size := len(e.Message) + len(e.Code) + len(e.Detail)
	for _, r := range e.Reasons {
		size += len(r)
	}
	if size <= maxErrorText || c.Load(size) == nil {
		return err
	}
	return &service.Error{
		Op: e.Op, Service: e.Service, Kind: e.Kind, Code: shortened(e.Code), Message: shortened(e.Message),
		RetryAfter: e.RetryAfter, Fuel: e.Fuel, Resource: e.Resource, Used: e.Used, Limit: e.Limit,
		Version: e.Version,
	}
}

// shortened is a copy of the beginning of a text.
func shortened(s string) string {
	if len(s) <= maxErrorText {
		return s
	}
	return strings.ToValidUTF8(s[:maxErrorText], "") + "…"
}
