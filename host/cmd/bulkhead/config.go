package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// configFile resolves flags from a JSON object. A member has the name of its flag, with '_' for '-'. A member
// without a flag is an error, as such a setting would have no effect, and so is a repeated member. The
// environment takes precedence over the file.
type configFile map[string]any

// maxConfig is the maximum size of a configuration file, in bytes.
const maxConfig = 1 << 20

var byteOrderMark = []byte("\xef\xbb\xbf")

func loadConfig(r io.Reader) (kong.Resolver, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("it has more than %s", size(maxConfig))
	}
	if err != nil {
		return nil, fmt.Errorf("the configuration file cannot be read: %w", err)
	}
	c, err := decodeConfig(bytes.TrimPrefix(text, byteOrderMark)) // some editors on Windows write one
	if err != nil {
		return nil, fmt.Errorf("the configuration file cannot be used: %w", err)
	}
	return c, nil
}

// decodeConfig reads the object. It is total.
func decodeConfig(text []byte) (configFile, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty, and an object of settings is needed")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // so that a flag gets the number's text, and 1.5 does not become 2
	wrong := func(err error) error {
		line := 1 + bytes.Count(text[:min(d.InputOffset(), int64(len(text)))], []byte("\n"))
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("line %d: %w", line, err)
	}
	if begin, err := d.Token(); err != nil {
		return nil, wrong(err)
	} else if begin != json.Delim('{') {
		return nil, fmt.Errorf("it is %s, and an object of settings is needed", kindOf(begin))
	}
	c := configFile{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, wrong(err)
		}
		name := token.(string) // the decoder ensures that a name is a string
		if _, twice := c[name]; twice {
			return nil, wrong(fmt.Errorf("it sets %s twice", name))
		}
		var value any
		if err := d.Decode(&value); err != nil {
			return nil, wrong(err)
		}
		c[name] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, wrong(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, wrong(errors.New("something follows the object"))
	}
	if err := service.CheckJSON("", text); err != nil {
		return nil, err
	}
	return c, nil
}

// kindOf names the kind of a JSON text by its first token.
func kindOf(t json.Token) string {
	switch t := t.(type) {
	case json.Delim:
		return "an array"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return strconv.FormatBool(t)
	}
	return "null"
}

// oneOff reports whether a flag is for one command line only: neither the environment nor a file can set it.
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
		return fmt.Errorf("the configuration file sets %s, which no setting is called; they are those of serve "+
			"--help, with '_' for '-'", strings.Join(strange, ", "))
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
