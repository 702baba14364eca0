package safetext

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// hostile has one example of each kind of text that affects a terminal or its reader.
var hostile = []struct{ name, text, want, json string }{
	{"CSI", "\x1b[2Jx", `\x1b[2Jx`, `\u001b[2Jx`},
	{"OSC 52", "\x1b]52;c;QQ==\x07", `\x1b]52;c;QQ==\x07`, `\u001b]52;c;QQ==\u0007`},
	{"C1 CSI", "a\u009b31mb", `a\u009b31mb`, `a\u009b31mb`},
	{"lone C1 byte", "a\x9bb", `a\x9bb`, `a\ufffdb`},
	{"DEL", "a\x7f", `a\x7f`, `a\u007f`},
	{"NUL and backspace", "a\x00\x08", `a\x00\x08`, `a\u0000\u0008`},
	{"forged line", "a\nb\r\nc\td", `a\nb\r\nc\td`, `a b  c d`},
	{"override", "a\u202eb\u202c", `a\u202eb\u202c`, `a\u202eb\u202c`},
	{"isolates", "\u2066a\u2069", `\u2066a\u2069`, `\u2066a\u2069`},
	{"marks of direction", "\u200ea\u200f\u061c", `\u200ea\u200f\u061c`, `\u200ea\u200f\u061c`},
	{"zero width", "a\u200bb\u200c\u200d\u2060\ufeff", `a\u200bb\u200c\u200d\u2060\ufeff`,
		`a\u200bb\u200c\u200d\u2060\ufeff`},
	{"separators", "a\u2028b\u2029", `a\u2028b\u2029`, `a\u2028b\u2029`},
	{"tags", "a\U000e0041", `a\U000e0041`, `a\udb40\udc41`},
	{"invisible letter", "a\u3164\u115f", `a\u3164\u115f`, `a\u3164\u115f`},
	{"not UTF-8", "a\xff\xc3", `a\xff\xc3`, `a\ufffd\ufffd`},
	{"harmless", `äöü 日本 مرحبا 👍🏽 \n \x1b`, `äöü 日本 مرحبا 👍🏽 \n \x1b`, `äöü 日本 مرحبا 👍🏽 \n \x1b`},
}

func TestText(t *testing.T) {
	for _, c := range hostile {
		if got := Text(c.text); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := string(JSON([]byte(c.text))); got != c.json {
			t.Errorf("%s as JSON: %q, want %q", c.name, got, c.json)
		}
		if got, want := Lines(c.text), strings.ReplaceAll(c.want, `a\nb\r\n`, "a\nb\\r\n"); got != want {
			t.Errorf("%s in lines: %q, want %q", c.name, got, want)
		}
	}
}

func TestBody(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"", ""},
		{`{"a": 1,` + "\n\t" + `"b": "c d"}`, `{"a":1,"b":"c d"}`},
		{`{"a":"` + "\u202e\x7f\u009b" + `"}`, `{"a":"\u202e\u007f\u009b"}`},
		{`{"n":12345678901234567890.10}`, `{"n":12345678901234567890.10}`},
		{"hello, wörld", "hello, wörld"},
		{"two\nlines", "base64:dHdvCmxpbmVz"},
		{"\x1b[2J", "base64:G1sySg=="},
		{"\xff", "base64:/w=="},
		{"\"\xff\"", "base64:Iv8i"}, // json.Valid takes it
		{"base64:QQ==", "base64:YmFzZTY0OlFRPT0="},
	} {
		if got := Body([]byte(c.body)); got != c.want {
			t.Errorf("%q is shown as %q, want %q", c.body, got, c.want)
		}
	}
}

// The writer escapes like Lines, however the text is split into writes.
func TestWriter(t *testing.T) {
	for _, c := range hostile {
		for cut := range len(c.text) + 1 {
			var b bytes.Buffer
			w := NewWriter(&b)
			for _, part := range []string{c.text[:cut], c.text[cut:]} {
				if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
					t.Fatal(n, err)
				}
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			if b.String() != Lines(c.text) {
				t.Errorf("%s, cut at %d: %q, want %q", c.name, cut, &b, Lines(c.text))
			}
		}
	}
}

func FuzzText(f *testing.F) {
	for _, c := range hostile {
		f.Add([]byte(c.text))
		f.Add([]byte(`{"a":"` + c.text + `"}`))
	}
	f.Add([]byte(`{"a": [1, "b\u202e"]}`))
	f.Add([]byte("base64:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		once := Text(string(b))
		check(t, "text", once, "")
		if again := Text(once); again != once {
			t.Errorf("%q is escaped twice: %q", once, again)
		}
		check(t, "lines", Lines(string(b)), "\n")
		check(t, "JSON", string(JSON(b)), "")
		body := Body(b)
		check(t, "body", body, "")
		if encoded, is := strings.CutPrefix(body, base64Prefix); is {
			if back, err := base64.StdEncoding.DecodeString(encoded); err != nil || !bytes.Equal(back, b) {
				t.Errorf("%q is shown as %s", b, body)
			}
		}
		var before, after any
		if json.Unmarshal(b, &before) != nil {
			return
		}
		if err := json.Unmarshal(JSON(b), &after); err != nil {
			t.Fatalf("%q becomes %q, which is no JSON: %v", b, JSON(b), err)
		}
		was, _ := json.Marshal(before)
		is, _ := json.Marshal(after)
		if !bytes.Equal(was, is) {
			t.Errorf("%q becomes %q, which means something else", b, JSON(b))
		}
	})
}

// check tests that what is shown has nothing that a terminal must not get, independently of Unsafe.
func check(t *testing.T, what, s, allowed string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%s is not UTF-8: %q", what, s)
	}
	for _, r := range s {
		control := r < 0x20 || r >= 0x7f && r <= 0x9f
		bidi := r == 0x61c || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
		other := r >= 0x200b && r <= 0x200d || r == 0x2028 || r == 0x2029 || r == 0x2060 || r == 0xfeff
		if (control || bidi || other) && !strings.ContainsRune(allowed, r) {
			t.Errorf("%s has %U: %q", what, r, s)
		}
	}
}
