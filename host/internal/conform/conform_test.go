package conform

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

func check(t *testing.T, lie string) Report {
	t.Helper()
	rep, err := Check(context.Background(), &fake{lie: lie}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func failed(rep Report) (ids []string) {
	for _, r := range rep.Results {
		if r.Status == Failed {
			ids = append(ids, r.Rule)
		}
	}
	return ids
}

func TestHonestGuestPassesAll(t *testing.T) {
	var seen []string
	rep, err := Check(context.Background(), &fake{}, Options{Progress: func(r Result) { seen = append(seen, r.Rule) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Results {
		if r.Status != Passed {
			t.Errorf("%s %s: %s: got %s%s", r.Rule, r.Title, r.Status, r.Got, r.Reason)
		}
	}
	if len(seen) != len(rules) || rep.Passed != len(rules) || !rep.OK() {
		t.Errorf("%d rules, progress on %d, %d passed", len(rules), len(seen), rep.Passed)
	}
	r, ok := rep.Result("G21")
	if !ok || !strings.Contains(r.Got, "events") || strings.HasSuffix(r.Got, " 0 events") {
		t.Errorf("no event was replayed: %+v", r)
	}
}

// Each lie breaks one rule, and the report names exactly that rule.
func TestEachLieIsFound(t *testing.T) {
	raced.Skip(t, "it compiles many modules, and has one goroutine")
	prove.SkipShort(t, "it compiles many modules")
	for lie, rule := range map[string]string{
		"small mailbox":          "G5",
		"chatty":                 "G8",
		"half a frame":           "G7",
		"spaced code":            "G7",
		"no JSON":                "G7",
		"faults at Drop":         "G9",
		"wrong slot":             "G8",
		"wrong index":            "G8",
		"answers Drop":           "G9",
		"query emits":            "G9",
		"no snapshot":            "G9",
		"effect":                 "G9",
		"no terminal":            "G10",
		"two terminals":          "G10",
		"wrong count":            "G11",
		"unknown event":          "G11",
		"rejects after an event": "G11",
		"traps on unknown types": "G12",
		"traps on garbage":       "G12",
		"bad manifest":           "G13",
		"restless manifest":      "G13",
		"never drops":            "G14",
		"keeps the opened":       "G14",
		"opens on demand":        "G15",
		"applies anything":       "G16",
		"stops at unknown kinds": "G18",
		"strict flags":           "G19",
		"echoes trailing":        "G19",
		"ignores malformed":      "G20",
		"changes without event":  "G21",
		"differs for a while":    "G21",

		"applies at another version":          "G21",
		"applies at another time":             "G21",
		"applies without metadata":            "G21",
		"applies with the command's metadata": "G21",

		"forgets by snapshot": "G23",
		"query writes":        "G22",
		"rejecting writes":    "G22",
		"odd snapshot":        "G23",
		"hidden state":        "G23",
		"ambient randomness":  "G24",
		"sum of all":          "G25",
	} {
		t.Run(lie, func(t *testing.T) {
			rep := check(t, lie)
			if got := failed(rep); !slices.Contains(got, rule) {
				t.Errorf("rules failed: %v, want %s among them", got, rule)
			}
			r, _ := rep.Result(rule)
			if r.Got == "" || r.Expected == "" {
				t.Errorf("nothing to learn from %+v", r)
			}
		})
	}
}

func TestMailboxMayRefuseAboveTheLeastSize(t *testing.T) {
	rep := check(t, "medium mailbox")
	if !rep.OK() {
		t.Fatalf("failed: %v", failed(rep))
	}
	if r, _ := rep.Result("G6"); !strings.Contains(r.Got, "65536") {
		t.Errorf("no remark on the size: %+v", r)
	}
}

func TestSkippedForAReason(t *testing.T) {
	rep := check(t, "wrong count") // nothing is known about replay
	r, _ := rep.Result("G21")
	if r.Status != Skipped || !strings.Contains(r.Reason, "G11") {
		t.Errorf("got %+v", r)
	}
	rep = refused(map[string][]string{ruleImports: {"import env.fopen is unknown"}}, Options{})
	if rep.OK() || rep.Failed != 1 || rep.Skipped != len(rules)-1 || rep.Results[2].Rule != ruleImports ||
		!strings.Contains(rep.Results[2].Got, "env.fopen") {
		t.Errorf("got %+v", rep)
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), -time.Second)
	defer cancel()
	if _, err := Check(ctx, &fake{}, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestReportIsJSON(t *testing.T) {
	b, err := json.Marshal(check(t, "wrong slot"))
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(b, &back); err != nil || back["failed"] == 0.0 || back["results"] == nil {
		t.Errorf("%v: %s", err, b)
	}
}

// The rules have the numbers of SPEC.md.
func TestRulesAreThoseOfTheSpec(t *testing.T) {
	spec, err := os.ReadFile("../../../abi/SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	inSpec := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^- \*\*(G\d+)\*\*`).FindAllStringSubmatch(string(spec), -1) {
		inSpec[m[1]] = true
	}
	seen := map[string]bool{}
	for _, r := range rules {
		if !inSpec[r.id] {
			t.Errorf("%s is no rule of SPEC.md", r.id)
		}
		if seen[r.id] {
			t.Errorf("%s appears twice", r.id)
		}
		seen[r.id] = true
	}
	for id := range inSpec {
		if !seen[id] && id != "G26" && id != "G27" { // these two cannot be checked from outside
			t.Errorf("%s of SPEC.md is not checked", id)
		}
	}
}
