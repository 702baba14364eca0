package jsonplan

import (
	"math/big"
	"testing"
	"time"
)

func forms[A, B any](t *testing.T, same bool) {
	t.Helper()
	a, b := plan[A](t), plan[B](t)
	if got := a.Form() == b.Form(); got != same || (a.Fingerprint() == b.Fingerprint()) != same {
		t.Errorf("%v and %v: the same form %v\n%s %#x\n%s %#x", a.typ, b.typ, got, a.Form(), a.Fingerprint(), b.Form(),
			b.Fingerprint())
	}
}

// The form depends on what JSON shows, and on nothing else.
func TestForms(t *testing.T) {
	type base struct {
		A int    `json:"a"`
		B string `json:"b"`
	}
	type embeds struct {
		base
		C []base
	}
	forms[base, struct {
		Second string `json:"b"`
		First  int64  `json:"a"`
		Left   bool   `json:"-"`
	}](t, true) // other names in Go, another order, a field that is not written
	forms[embeds, struct {
		A int  `json:"a"`
		B name `json:"b"`
		C []base
	}](t, true)
	forms[base, struct {
		A int    `json:"x"`
		B string `json:"b"`
	}](t, false)
	forms[base, struct {
		A int `json:"a"`
	}](t, false)
	forms[base, struct {
		A int    `json:"a"`
		B string `json:"b,omitempty"`
	}](t, false)
	forms[struct {
		B []int `json:"b,omitempty"`
	}, struct {
		B []int `json:"b,omitzero"`
	}](t, true) // either may be missing
	forms[struct{ F embedded }, struct {
		F embedded `json:",omitempty"`
	}](t, true) // which leaves out no struct
	forms[int32, int64](t, false)
	forms[int64, uint64](t, false)
	forms[float32, float64](t, false)
	forms[int, bool](t, false)
	forms[string, []byte](t, false)
	forms[[]string, []byte](t, false)
	forms[[]int, [2]int](t, false)
	forms[[3]int, [2]int](t, false)
	forms[[]int, map[string]int](t, false)
	forms[*int, int](t, false)
	forms[time.Time, string](t, false)
	forms[time.Time, big.Int](t, false)
	forms[struct{ A struct{ B int } }, struct{ A, B int }](t, false)
	forms[map[string]struct{ A int }, struct{ A map[string]int }](t, false)
	forms[list, []list](t, false) // no level, and one level
	type recursive struct {
		Next []recursive
	}
	type unrolled struct {
		Next []struct{ Next []unrolled }
	}
	forms[recursive, unrolled](t, false)
}

// A form is the same in every build, and so is its hash: the validity of snapshots depends on it.
func TestFingerprintsStay(t *testing.T) {
	for _, c := range []struct {
		p    *Plan
		form string
		hash uint32
	}{
		{plan[struct{}](t), `{}`, 0xd465b825},
		{plan[list](t), `[^1]`, 0xff8c50ce},
		{plan[order](t), `{"count":int64;"extra":?map[{"inner":*^2;"kind":?string;` +
			`"width":int64;}];"inner":*{"inner":^2;` +
			`"kind":?string;"width":int64;};` +
			`"kind":?string;"labels":?map[string];"note":*string;"pair":[2 bool];` +
			`"parts":?[{"inner":*^2;"kind":?string;"width":int64;}];"price":?float64;` +
			`"raw":?bytes;"sku":string;"small":?uint8;"tags":[string];"when":?text Time;"width":int64;}`, 0x875126ec},
	} {
		if got := c.p.Form(); got != c.form {
			t.Errorf("got  %s\nwant %s", got, c.form)
		}
		if got := c.p.Fingerprint(); got != c.hash {
			t.Errorf("%s has %#x, want %#x", c.form, got, c.hash)
		}
	}
}
