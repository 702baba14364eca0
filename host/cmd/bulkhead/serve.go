package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"
)

// serveCmd runs a host until it is told to stop.
type serveCmd struct {
	Data     string        `default:"bulkhead-data" type:"path" placeholder:"DIR" help:"Directory of the journal and the modules; made if it is missing. Default ./bulkhead-data."`
	Listen   string        `default:"127.0.0.1:8080" placeholder:"ADDRESS" help:"Where to listen; port 0 takes a free one. Default ${default}."`
	Token    string        `placeholder:"TOKEN" help:"What clients must show. Better set in the environment than on the command line, where others can see it."`
	Open     bool          `name:"allow-open" help:"Listen beyond loopback without a token."`
	Origins  []string      `name:"allow-origin" placeholder:"ORIGIN" help:"Let web pages of this origin open WebSockets; may be repeated. Default: none but the host's own."`
	Demo     []string      `type:"existingfile" placeholder:"FILE" help:"Deploy this module at the start, unless its service is there already, and print what to try; may be repeated."`
	Shutdown time.Duration `name:"shutdown-timeout" default:"30s" placeholder:"TIME" help:"How long commands in flight may take when the host stops. Default ${default}."`
	LogLevel slog.Level    `name:"log-level" default:"INFO" placeholder:"LEVEL" help:"debug, info, warn or error. Default ${default}."`
	LogForm  string        `name:"log-format" enum:"text,json" default:"text" placeholder:"FORM" help:"text or json. Default ${default}."`

	Limits limitFlags `embed:"" prefix:"limit-" group:"Limits of services that set none of their own"`
}

func (c *serveCmd) Run(e *env) error {
	if err := c.checkListen(); err != nil {
		return usageError{err}
	}
	return errors.New("not yet")
}

// checkListen refuses to be open to the network by accident.
func (c *serveCmd) checkListen() error {
	name, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	ip := net.ParseIP(name)
	if name == "localhost" || ip != nil && ip.IsLoopback() || c.Token != "" || c.Open {
		return nil
	}
	return fmt.Errorf("--listen %s can be reached from elsewhere: set a token in BULKHEAD_TOKEN, or allow it with --allow-open", c.Listen)
}

func (c *serveCmd) logger(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if strings.EqualFold(c.LogForm, "json") {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func serveVars() map[string]string { return map[string]string{} }
