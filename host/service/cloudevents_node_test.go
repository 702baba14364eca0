//go:build node

package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheJavaScriptSDKReadsEveryEvent is TestTheGoSDKReadsEveryEvent for the SDK that make
// test-js installs.
func TestTheJavaScriptSDKReadsEveryEvent(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cases := cloudCases(t)
	var in bytes.Buffer
	for _, c := range cases {
		if err := json.NewEncoder(&in).Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("node", filepath.Join(root, ".ci/js/cloudevents.mjs"), filepath.Join(root, "build/js"))
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if want := fmt.Sprintf("%d events read", len(cases)); err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("%v, said %q, want %q", err, out, want)
	}
}
