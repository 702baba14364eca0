// Package conform checks a module against the rules of the guest ABI, which abi/SPEC.md numbers. It
// reports for each rule whether the module keeps it. It needs to know nothing about the service: it reads
// the manifest, makes bodies from the schemas and checks the frames of the answers.
//
// There are two kinds of rules. Watched rules concern every answer, such as the slot in its frames; they
// are checked at each of hundreds of exchanges. Each of the other rules has its own scenario, in new
// instances.
package conform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Options of a run. The zero value is valid.
type Options struct {
	// Limits are the limits of the module. Zero fields mean the defaults.
	Limits service.Limits
	// Samples are bodies for commands and queries, by name. They are tried before the bodies that are
	// made from the schemas. They are needed if a command can only succeed with data that its schema
	// does not describe.
	Samples map[string][]json.RawMessage
	// Logger gets what the module logs. Default: it is dropped.
	Logger *slog.Logger
	// Progress is called with each result as soon as it is known, on the goroutine of [Run]. Watched
	// rules come last. Default: none.
	Progress func(Result)
}

// Status is the result of a rule in a run.
type Status string

// The results of a rule. A skipped rule could not be checked on this module; its result says why.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Result is the result of one rule.
type Result struct {
	Rule     string `json:"rule"` // its number in SPEC.md, such as "G12"
	Title    string `json:"title"`
	Status   Status `json:"status"`
	Expected string `json:"expected"`
	Got      string `json:"got,omitempty"`    // of a failed rule; of a passed rule, a remark
	Reason   string `json:"reason,omitempty"` // of a skipped rule
}

// Report is the result of a run: one result for each rule, in the order of their numbers.
type Report struct {
	Module  service.Digest `json:"module"`
	Bytes   int            `json:"bytes"`
	Service string         `json:"service,omitempty"` // empty if the module was refused
	SDK     string         `json:"sdk,omitempty"`
	Passed  int            `json:"passed"`
	Failed  int            `json:"failed"`
	Skipped int            `json:"skipped"`
	Results []Result       `json:"results"`
}

// OK reports whether no rule failed.
func (r Report) OK() bool { return r.Failed == 0 }

// Result returns the result of one rule.
func (r Report) Result(rule string) (Result, bool) {
	i := slices.IndexFunc(r.Results, func(x Result) bool { return x.Rule == rule })
	if i < 0 {
		return Result{}, false
	}
	return r.Results[i], true
}

// Instance is a sandbox as this package uses it: it takes and returns raw frames. After an error it is not
// used again. *sandbox.Instance implements it.
type Instance interface {
	Exchange(ctx context.Context, request []byte) (response []byte, err error)
	Close(ctx context.Context) error
}

// Subject is a module that has passed the host's checks at upload.
type Subject interface {
	Manifest() abi.Manifest
	Instantiate(ctx context.Context) (Instance, error)
}

// Check checks the rules that need a running module. [Run] uses it with the host's own sandbox. It returns
// an error only if ctx ends.
func Check(ctx context.Context, s Subject, o Options) (Report, error) {
	o.Limits = o.Limits.WithDefaults()
	k := &kit{ctx: ctx, o: o, subject: s, manifest: s.Manifest(), watched: map[string]string{}}
	rep := Report{Service: k.manifest.Service, SDK: k.manifest.SDK}
	found := map[string]Result{}
	for _, r := range rules {
		switch {
		case r.static:
			found[r.id] = r.result(nil)
		case r.check != nil:
			k.rule = r.id
			err := r.check(k)
			if ctx.Err() != nil {
				return Report{}, ctx.Err()
			}
			found[r.id] = r.result(err)
		default:
			continue
		}
		if o.Progress != nil {
			o.Progress(found[r.id])
		}
	}
	for _, r := range rules {
		if r.static || r.check != nil {
			continue
		}
		var err error
		if got, broken := k.watched[r.id]; broken {
			err = failure(got)
		} else if k.exchanges == 0 {
			err = inapplicable("the module never answered")
		}
		found[r.id] = r.result(err)
		if o.Progress != nil {
			o.Progress(found[r.id])
		}
	}
	rep.add(found)
	return rep, nil
}

// refused returns the report on a module that the host refuses. Each reason is reported under its rule, and
// all other rules are skipped.
func refused(reasons map[string][]string, o Options) Report {
	var rep Report
	found := map[string]Result{}
	for _, r := range rules {
		var err error = inapplicable("the host refuses the module at upload")
		if why := reasons[r.id]; len(why) > 0 {
			err = failure(strings.Join(why, "; "))
		}
		found[r.id] = r.result(err)
		if o.Progress != nil {
			o.Progress(found[r.id])
		}
	}
	rep.add(found)
	return rep
}

func (r *Report) add(found map[string]Result) {
	for _, rule := range rules {
		x := found[rule.id]
		r.Results = append(r.Results, x)
		switch x.Status {
		case Passed:
			r.Passed++
		case Failed:
			r.Failed++
		case Skipped:
			r.Skipped++
		}
	}
}

// rule is one rule of SPEC.md. It is watched if it has no check and is not static.
type rule struct {
	id       string
	title    string
	expected string
	static   bool // the host checks it at upload, so a module that gets here keeps it
	check    func(*kit) error
}

// The errors that a check may return. Any other error is a failure too.
type (
	failure      string // the rule is broken; the text says what was got
	inapplicable string // the rule cannot be checked on this module
	remark       string // the rule is kept; the text is a remark
	// broken says that an answer broke a watched rule. Then nothing is known about the rule of the
	// check.
	broken struct{ rule, got string }
)

func (e failure) Error() string      { return string(e) }
func (e inapplicable) Error() string { return string(e) }
func (e remark) Error() string       { return string(e) }
func (e *broken) Error() string      { return "an answer broke " + e.rule + ": " + e.got }

func failf(format string, args ...any) error { return failure(fmt.Sprintf(format, args...)) }

func (r rule) result(err error) Result {
	res := Result{Rule: r.id, Title: r.title, Expected: r.expected, Status: Passed}
	var skip inapplicable
	var note remark
	var other *broken
	switch {
	case err == nil:
	case errors.As(err, &note):
		res.Got = string(note)
	case errors.As(err, &skip):
		res.Status, res.Reason = Skipped, string(skip)
	case errors.As(err, &other):
		res.Status, res.Reason = Skipped, other.Error()
	default:
		res.Status, res.Got = Failed, err.Error()
	}
	return res
}
