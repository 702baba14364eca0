package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/bulkhead-wasm/bulkhead/host/internal/conform"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
)

// conformCmd checks a module against the rules of the ABI, without a host.
type conformCmd struct {
	Module  string     `arg:"" type:"existingfile" help:"The module, a .wasm file."`
	Failed  bool       `help:"Show only the rules that are broken."`
	Samples string     `type:"existingfile" placeholder:"FILE" help:"JSON file with sample bodies by the name of the command or query. Needed where a schema is not enough to make one."`
	Limits  limitFlags `embed:"" prefix:"limit-" group:"Limits that the module is held to"`
}

func (c *conformCmd) Run(e *env) error {
	module, err := os.ReadFile(c.Module)
	if err != nil {
		return err
	}
	options := conform.Options{Limits: c.Limits.limits()}
	if c.Samples != "" {
		if options.Samples, err = readSamples(c.Samples); err != nil {
			return usageError{err}
		}
	}
	bar := e.progress()
	bar.at("compiling and running "+relative(c.Module), 0, 0, countUnit)
	report, err := conform.Run(e.ctx, module, options)
	bar.done()
	if err != nil {
		return err
	}
	e.print(report, func(w io.Writer) { printConformance(w, report, c.Failed) })
	if !report.OK() {
		return checkError{fmt.Sprintf("%s breaks %d of the rules of the ABI", relative(c.Module), report.Failed)}
	}
	return nil
}

func printConformance(w io.Writer, report conform.Report, failedOnly bool) {
	for _, r := range report.Results {
		if failedOnly && r.Status != conform.Failed {
			continue
		}
		fmt.Fprintf(w, "%-8s %-4s %s\n", r.Status, r.Rule, safetext.Text(r.Title))
		switch r.Status {
		case conform.Failed:
			fmt.Fprintf(w, "         expected: %s\n         got:      %s\n", safetext.Text(r.Expected),
				safetext.Text(r.Got))
		case conform.Skipped:
			fmt.Fprintf(w, "         because %s\n", safetext.Text(r.Reason))
		}
	}
	fmt.Fprintf(w, "%s: service %q, %d rules passed, %d failed, %d skipped\n", report.Module, report.Service,
		report.Passed, report.Failed, report.Skipped)
}

func readSamples(file string) (map[string][]json.RawMessage, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var one map[string]json.RawMessage
	if err := json.Unmarshal(text, &one); err != nil {
		return nil, fmt.Errorf("%s is not a JSON object of bodies by name: %w", file, err)
	}
	samples := map[string][]json.RawMessage{}
	for name, body := range one {
		samples[name] = []json.RawMessage{body}
	}
	return samples, nil
}
