package readmetest

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The tests that GUARANTEES.md names as guards of the laws exist.
func TestGuardsOfTheLawsExist(t *testing.T) {
	text, err := os.ReadFile("../../GUARANTEES.md")
	if err != nil {
		t.Fatal(err)
	}
	grep := exec.Command("grep", "-rhoE", "--include=*_test.go", "^func (Test|Fuzz)[A-Za-z0-9_]+", "../../..")
	out, err := grep.Output()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		have[strings.TrimSpace(strings.TrimPrefix(line, "func "))] = true
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(string(text), -1)
	if len(names) == 0 {
		t.Fatal("it names no test")
	}
	for _, m := range names {
		if !have[m[1]] && m[1] != "TestMain" {
			t.Errorf("GUARANTEES.md says that %s guards a law; there is no such test", m[1])
		}
	}
}
