package abitest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/golden.json; a change there is a change of the wire format")

func TestGoldenFile(t *testing.T) {
	f, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(f); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/golden.json", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(b.Bytes(), golden) {
		t.Fatal("testdata/golden.json is not what the codec makes: the wire format changed, or the vectors did; " +
			"if that was meant, run go test ./abi/abitest -update")
	}
}

func TestGoldenVectors(t *testing.T) {
	f, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, v := range f.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			if seen[v.Name] {
				t.Fatal("name used twice")
			}
			seen[v.Name] = true
			b, err := v.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(v.Kind, b)
			if v.Error != "" {
				if ErrorName(err) != v.Error {
					t.Fatalf("decoded to %+v, %v; want the refusal %s", got, err, v.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, v.Fields) {
				t.Fatalf("decoded\n got %+v\nwant %+v", got, v.Fields)
			}
			if v.DecodeOnly {
				return
			}
			again, err := Encode(v.Kind, v.Fields)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, b) {
				t.Fatalf("encoded\n got %x\nwant %x", again, b)
			}
		})
	}
}
