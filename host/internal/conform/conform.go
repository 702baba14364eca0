// Package conform runs any module through the rules of the guest ABI, as
// abi/SPEC.md numbers them, and says of each whether the module keeps it. It
// needs no knowledge of the service: it reads the manifest, makes up bodies from
// the schemas and watches the frames that come back.
//
// There are two sorts of rules. Watched rules are about every answer, such as
// the slot in its frames; they are checked at each of the hundreds of exchanges.
// The others are scenarios of their own, each in fresh instances.
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

// Options of a run. The zero value is good.
type Options struct {
	// Limits are those the module is run under. Zero fields mean the defaults.
	Limits service.Limits
	// Samples are bodies for commands and queries, by name, that are tried before
	// the ones made up from the schemas. Give some where a schema says too little
	// for a command to be carried out.
	Samples map[string][]json.RawMessage
	// Logger receives what the module logs. Default: nowhere.
	Logger *slog.Logger
	// Progress is called with each result as it is known, on the goroutine of
	// [Run]. Watched rules come last. Default: none.
	Progress func(Result)
}

// Status of a rule after a run.
type Status string

// What can become of a rule. A skipped one could not be checked on this module,
// for the reason its result gives.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Result is what a run found out about one rule.
type Result struct {
	Rule     string `json:"rule"` // its number in SPEC.md, such as "G12"
	Title    string `json:"title"`
	Status   Status `json:"status"`
	Expected string `json:"expected"`
	Got      string `json:"got,omitempty"`    // of a failed rule; of a passed one, a remark
	Reason   string `json:"reason,omitempty"` // of a skipped rule
}

// Report is the outcome of a run: one result a rule, in the order of their numbers.
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

// Result finds the result of one rule.
func (r Report) Result(rule string) (Result, bool) {
	i := slices.IndexFunc(r.Results, func(x Result) bool { return x.Rule == rule })
	if i < 0 {
		return Result{}, false
	}
	return r.Results[i], true
}

// Instance is one sandbox as the kit uses it: raw frames in, raw frames out.
// After an error it is not used again. *sandbox.Instance is one.
type Instance interface {
	Exchange(ctx context.Context, request []byte) (response []byte, err error)
	Close(ctx context.Context) error
}

// Subject is a module that passed the host's checks at upload.
type Subject interface {
	Manifest() abi.Manifest
	Instantiate(ctx context.Context) (Instance, error)
}

// Check runs the rules that need a running module over s. [Run] is this with the
// host's own sandbox. The error is ctx's, if that ended first.
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

// refused is the report on a module that the host does not take: the reasons
// are laid to the rules they are about, and nothing else could be checked.
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

// rule is one rule of SPEC.md. Without check and not static it is watched.
type rule struct {
	id       string
	title    string
	expected string
	static   bool // checked by the host at upload: a module that gets here keeps it
	check    func(*kit) error
}

// The errors that a check may return. Anything else it returns is a failure too.
type (
	failure      string // the rule is broken: what was got
	inapplicable string // this module gives no occasion to check the rule
	remark       string // the rule is kept, and there is something to say
	// broken says that an answer broke a watched rule, so that nothing can be said
	// about the rule in question.
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
