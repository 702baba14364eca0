package service

import (
	"strings"
	"testing"
)

func TestNamesAreChecked(t *testing.T) {
	long := strings.Repeat("a", 300)
	cases := []struct {
		what  string
		parse func(string) error
		good  []string
		bad   []string
	}{
		{"service name", func(s string) error { _, err := ParseName(s); return err },
			[]string{"a", "bank", "bank-2", "a-", long[:63]},
			[]string{"", "Bank", "2bank", "-bank", "_host", "bank.one", "bänk", "a/b", "..", "a\x00", long[:64]}},
		{"key", func(s string) error { _, err := ParseKey(s); return err },
			[]string{"alice", "a/b", "...", "zoë", " ", "%2F", long[:256]},
			[]string{"", ".", "..", "a\x00", "a\nb", "\x7f", "a\u0085", "\xff", long[:257]}},
		{"type", func(s string) error { _, err := ParseType(s); return err },
			[]string{"deposit", "Opened", "v1.opened_at-now", long[:128]},
			[]string{"", "a b", "a/b", "é", "a\x00", long[:129]}},
		{"command id", func(s string) error { _, err := ParseCommandID(s); return err },
			[]string{"1", "0198c9a2-7d1e", `"quoted"`, long[:128]},
			[]string{"", "a b", "a\tb", "é", "\x7f", long[:129]}},
		{"digest", func(s string) error { _, err := ParseDigest(s); return err },
			[]string{DigestOf(nil).String(), strings.Repeat("0", 64)},
			[]string{"", "sha256:", "sha512:" + strings.Repeat("0", 64), strings.Repeat("0", 63),
				strings.Repeat("g", 64)}},
	}
	for _, c := range cases {
		for _, s := range c.good {
			if err := c.parse(s); err != nil {
				t.Errorf("%s %q is refused: %v", c.what, s, err)
			}
		}
		for _, s := range c.bad {
			err := c.parse(s)
			if KindOf(err) != KindInvalid {
				t.Errorf("%s %q gives %v, want an error of kind invalid", c.what, s, err)
				continue
			}
			if len(err.Error()) > 250 || strings.ContainsAny(err.Error(), "\x00\n\t") {
				t.Errorf("the error for %s %q shows the input raw: %q", c.what, s, err)
			}
		}
	}
}

func TestDigestRoundTrip(t *testing.T) {
	d := DigestOf([]byte("module"))
	text, _ := d.MarshalText()
	var back Digest
	if err := back.UnmarshalText(text); err != nil || back != d {
		t.Fatalf("%s came back as %s, %v", text, back, err)
	}
}

func FuzzNames(f *testing.F) {
	f.Add("bank")
	f.Add("a\x00\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, err := range []error{
			second(ParseName(s)), second(ParseKey(s)), second(ParseType(s)), second(ParseCommandID(s)),
			second(ParseDigest(s)),
		} {
			if err != nil && KindOf(err) != KindInvalid {
				t.Fatalf("%q: %v", s, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }
