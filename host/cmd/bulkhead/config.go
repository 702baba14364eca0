package main

import (
	"encoding/json"
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
	c := configFile{}
	if err := json.NewDecoder(r).Decode(&c); err != nil {
		return nil, fmt.Errorf("the configuration file is not a JSON object: %w", err)
	}
	return c, nil
}

// Validate implements kong.Resolver.
func (c configFile) Validate(app *kong.Application) error {
	known := map[string]bool{}
	_ = kong.Visit(app, func(n kong.Visitable, next kong.Next) error {
		if f, ok := n.(*kong.Flag); ok {
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
		return fmt.Errorf("the configuration file sets %s, which no flag is named", strings.Join(strange, ", "))
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
	switch v := c[memberName(f)].(type) {
	case nil:
		return nil, nil
	case float64:
		return fmt.Sprintf("%.0f", v), nil
	default:
		return v, nil
	}
}

func memberName(f *kong.Flag) string { return strings.ReplaceAll(f.Name, "-", "_") }
