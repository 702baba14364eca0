package meteringtest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The suite's JSON, in the form that wast2json writes.
type (
	specFile struct {
		Commands []specCommand `json:"commands"`
	}
	specCommand struct {
		Type       string      `json:"type"`
		Line       int         `json:"line"`
		Name       string      `json:"name"`
		Filename   string      `json:"filename"`
		As         string      `json:"as"`
		Action     specAction  `json:"action"`
		Expected   []specValue `json:"expected"`
		ModuleType string      `json:"module_type"`
		Text       string      `json:"text"`
	}
	specAction struct {
		Type   string      `json:"type"`
		Args   []specValue `json:"args"`
		Field  string      `json:"field"`
		Module string      `json:"module"`
	}
	specValue struct {
		Type  string          `json:"type"`
		Lane  string          `json:"lane_type"`
		Value json.RawMessage `json:"value"`
	}
)

// texts returns the value's numbers: one, or one for each lane.
func (v specValue) texts() []string {
	if len(v.Value) == 0 || string(v.Value) == "null" {
		return []string{"null"}
	}
	var one string
	if json.Unmarshal(v.Value, &one) == nil {
		return []string{one}
	}
	var many []string
	if err := json.Unmarshal(v.Value, &many); err != nil {
		panic(fmt.Sprintf("value %s: %v", v.Value, err))
	}
	return many
}

// width returns the width of each number, in bits.
func (v specValue) width() int {
	t := v.Type
	if t == "v128" {
		t = v.Lane
	}
	n, err := strconv.Atoi(strings.TrimLeft(t, "if"))
	if err != nil {
		return 64 // a reference
	}
	return n
}

// words returns an argument in wazero's encoding.
func (v specValue) words() []uint64 {
	w := make([]uint64, 1, 2)
	if v.Type == "v128" {
		w = w[:2]
	}
	for i, s := range v.texts() {
		bit := i * v.width()
		w[bit/64] |= v.bits(s) << (bit % 64)
	}
	return w
}

func (v specValue) bits(s string) uint64 {
	if s == "null" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		i, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			panic(fmt.Sprintf("value %q: %v", s, err))
		}
		n = uint64(i)
	}
	if v.Type == "externref" {
		n++ // null is 0 in wazero
	}
	if w := v.width(); w < 64 {
		n &= 1<<w - 1
	}
	return n
}

// matches compares a result with what the suite expects.
func (v specValue) matches(got []uint64) bool {
	if strings.HasSuffix(v.Type, "ref") && (len(v.Value) == 0 || v.Type == "funcref" && string(v.Value) != `"null"`) {
		return true // any
	}
	width := v.width()
	for i, s := range v.texts() {
		bit := i * width
		have := got[bit/64] >> (bit % 64)
		if width < 64 {
			have &= 1<<width - 1
		}
		if strings.HasPrefix(s, "nan:") {
			quiet, sign := uint64(0x7fc00000), uint64(1)<<31
			if width == 64 {
				quiet, sign = 0x7ff8<<48, 1<<63
			}
			if have&quiet != quiet || s == "nan:canonical" && have&^sign != quiet {
				return false
			}
			continue
		}
		if have != v.bits(s) {
			return false
		}
	}
	return true
}
