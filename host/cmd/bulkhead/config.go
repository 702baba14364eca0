package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// configFile resolves flags from a JSON object whose members are named as the
// flags are, with '_' for '-'. A member that no flag has is an error, as it would
// otherwise be a setting that silently does nothing. The environment goes before
// the file.
type configFile map[string]any

func loadConfig(r io.Reader) (kong.Resolver, error) {
	var c configFile
	d := json.NewDecoder(r)
	d.UseNumber() // so that a number reaches its flag as it is written, and 1.5 is no 2
	err := d.Decode(&c)
	if err == nil && c == nil {
		err = errors.New("it is null")
	}
	if _, end := d.Token(); err == nil && end != io.EOF {
		err = errors.New("there is something behind it")
	}
	if err != nil {
		return nil, fmt.Errorf("the configuration file is not a JSON object: %w", err)
	}
	return c, nil
}

// oneOff reports whether a flag is for one command line only, so that neither the
// environment nor a file sets it.
func oneOff(f *kong.Flag) bool { return f.Tag.Get("env") == "-" }

// Validate implements kong.Resolver.
func (c configFile) Validate(app *kong.Application) error {
	known := map[string]bool{}
	_ = kong.Visit(app, func(n kong.Visitable, next kong.Next) error {
		if f, ok := n.(*kong.Flag); ok && !oneOff(f) {
			known[memberName(f)] = true
		}
		return next(nil)
	})
	var strange []string
	for name := range c {
		if !known[name] {
			strange = append(strange, name)
		}
	}
	slices.Sort(strange)
	if len(strange) > 0 {
		return fmt.Errorf("the configuration file sets %s, which no setting is called; they are those of serve --help, with '_' for '-'", strings.Join(strange, ", "))
	}
	return nil
}

// Resolve implements kong.Resolver.
func (c configFile) Resolve(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	for _, name := range f.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	v := c[memberName(f)]
	if v == nil || oneOff(f) {
		return nil, nil
	}
	if n, ok := v.(json.Number); ok {
		return n.String(), nil
	}
	return v, nil
}

func memberName(f *kong.Flag) string { return strings.ReplaceAll(f.Name, "-", "_") }
