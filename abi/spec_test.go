package abi_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/abi/abitest"
)

var update = flag.Bool("update", false, "rewrite the C sources that SPEC.md shows")

// block is a fenced block of SPEC.md that has a name after its language.
type block struct{ lang, name, text string }

func specBlocks(t *testing.T) (spec string, blocks []block) {
	t.Helper()
	b, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+) (\\S+)\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		blocks = append(blocks, block{m[1], m[2], m[3]})
	}
	return string(b), blocks
}

// The bytes in SPEC.md are those of the golden vectors of the same names.
func TestSpecShowsGoldenBytes(t *testing.T) {
	_, blocks := specBlocks(t)
	shown, sizes := map[abitest.Kind]bool{}, map[string]int{}
	for _, b := range blocks {
		if b.lang != "hex" {
			continue
		}
		v, err := abitest.Lookup(b.name)
		if err != nil {
			t.Error(err)
			continue
		}
		var text strings.Builder
		for _, line := range strings.Split(b.text, "\n") {
			data, _, _ := strings.Cut(line, "#")
			text.WriteString(strings.ReplaceAll(data, " ", ""))
		}
		if text.String() != v.Hex {
			t.Errorf("%s: SPEC.md shows\n%s\nthe golden vector is\n%s", b.name, text.String(), v.Hex)
		}
		if raw, err := hex.DecodeString(v.Hex); err == nil {
			sizes[b.name] = len(raw)
		}
		shown[v.Kind] = true
	}
	for _, kind := range []abitest.Kind{abitest.Open, abitest.Apply, abitest.Command, abitest.Query,
		abitest.SnapshotRequest, abitest.Drop,
		abitest.Describe, abitest.Event, abitest.Reply, abitest.Reject, abitest.Fault, abitest.Snapshot,
		abitest.Description, abitest.Log, abitest.Metadata} {
		if !shown[kind] {
			t.Errorf("SPEC.md shows no example of %s", kind)
		}
	}
	// The sizes of the conversation in section 1.
	if sizes["command"] != 80 || sizes["event"]+sizes["reply"] != 0x50 {
		t.Errorf("section 1 has other sizes than %v", sizes)
	}
}

func TestSpecShowsTheTestedGuest(t *testing.T) {
	spec, blocks := specBlocks(t)
	found := 0
	for _, b := range blocks {
		if b.lang != "c" {
			continue
		}
		found++
		source, err := os.ReadFile(filepath.Join("abitest/testdata/c-guest", b.name))
		if err != nil {
			t.Fatal(err)
		}
		if b.text == string(source) {
			continue
		}
		if !*update {
			t.Errorf("%s in SPEC.md is not the file that is tested: run go test ./abi -run Spec -update", b.name)
			continue
		}
		fence := "```c " + b.name + "\n"
		spec = strings.Replace(spec, fence+b.text, fence+string(source), 1)
		if err := os.WriteFile("SPEC.md", []byte(spec), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if found != 2 {
		t.Errorf("SPEC.md shows %d C files, want 2", found)
	}
}

// Every number and name of the package is in SPEC.md.
func TestSpecIsComplete(t *testing.T) {
	spec, _ := specBlocks(t)
	want := []string{
		abi.ExportMemory, abi.ExportInitialize, abi.ExportReserve, abi.ExportCall, abi.ImportModule, abi.ReservedPrefix,
		abi.ManifestSection,
		abi.CodePanic, abi.CodeError, abi.CodeErrorAfterEmit, abi.CodeBadCommand, abi.CodeBadQuery, abi.CodeBadEvent,
		abi.CodeBadSnapshot,
		abi.CodeUnknownType, abi.CodeNoEntity, abi.CodeBadFrame, abi.CodeGoroutineLeak, abi.EncodingJSON,
		"request, 32 bytes", "response, 24 bytes", "`0x0001000000000048`",
	}
	for k := abi.ReqOpen; k <= abi.ReqDescribe; k++ {
		want = append(want, fmt.Sprintf("| %d | %v |", k, k), fmt.Sprintf("%v (%d)", k, k))
	}
	for k := abi.RespEvent; k <= abi.RespEffect; k++ {
		want = append(want, fmt.Sprintf("| %d | %v |", k, k))
	}
	for _, s := range want {
		if !strings.Contains(spec, s) {
			t.Errorf("SPEC.md does not mention %s", s)
		}
	}
	// The limits, in the words of the table.
	for text, limit := range map[string][2]int{
		"frame | 2^30 bytes": {abi.MaxFrameSize, 1 << 30},
		"type name | 256; 128; 128 bytes": {abi.MaxKeySize<<16 | abi.MaxCommandIDSize<<8 | abi.MaxNameSize,
			256<<16 | 128<<8 | 128},
		"command or event | 16 KiB":         {abi.MaxMetadataSize, 16 << 10},
		"refusal | 128 bytes; 4 KiB":        {abi.MaxCodeSize<<16 | abi.MaxMessageSize, 128<<16 | 4<<10},
		"events each | 1 MiB; 4,096":        {abi.MaxManifestSize<<8 | abi.MaxTypes>>8, 1<<28 | 4096>>8},
		"seed: random bytes for this":       {abi.SeedSize, 16},
		"a multiple of 8":                   {abi.FrameAlign, 8},
		"flag bit 0 (value 1) its state is": {int(abi.FlagSnapshot), 1},
		"flag bit 1 (value 2) too":          {int(abi.FlagEarlier), 2},
	} {
		if limit[0] != limit[1] {
			t.Errorf("%q: the package says otherwise", text)
		}
		if !strings.Contains(spec, text) {
			t.Errorf("SPEC.md does not say %q", text)
		}
	}
}

func TestSpecSchemaFitsTheManifest(t *testing.T) {
	_, blocks := specBlocks(t)
	i := slices.IndexFunc(blocks, func(b block) bool { return b.lang == "json" && b.name == "schema" })
	if i < 0 {
		t.Fatal("SPEC.md has no schema")
	}
	type object struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	var schema struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(blocks[i].text), &schema); err != nil {
		t.Fatal(err)
	}
	var members []string
	for f := range reflect.TypeFor[wireManifest]().Fields() {
		members = append(members, f.Tag.Get("json"))
	}
	slices.Sort(members)
	if got := slices.Sorted(maps.Keys(schema.Properties)); !slices.Equal(got, members) {
		t.Errorf("the schema has %v, a manifest %v", got, members)
	}
	if got := slices.Sorted(maps.Keys(schema.Defs["callable"].Properties)); !slices.Equal(got,
		[]string{"input", "name", "reply"}) {
		t.Errorf("callable has %v", got)
	}
	if got := slices.Sorted(maps.Keys(schema.Defs["event"].Properties)); !slices.Equal(got,
		[]string{"aliases", "name", "schema", "upcast_to"}) {
		t.Errorf("event has %v", got)
	}
}

func TestSpecLinks(t *testing.T) {
	spec, _ := specBlocks(t)
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(spec, -1) {
		slug := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors["#"+strings.ReplaceAll(slug, " ", "-")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(spec, -1) {
		if strings.HasPrefix(m[1], "#") {
			if !anchors[m[1]] {
				t.Errorf("no heading for %s", m[1])
			}
		} else if _, err := os.Stat(m[1]); err != nil {
			t.Error(err)
		}
	}
}
