package readmetest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const sample = "# Title\n\n```sh\nx=1\necho one\ncd /\n```\n\n```text\none\n```\n\n```sh background\nsleep 0.05; " +
	"echo up on 127.0.0.1:8080 after 12 ms; sleep 60\n```\n\n" +
	"```text\nup on 127.0.0.1:8080 after … ms\n```\n\n```go\nnot run\n```\n\n```sh offline\necho proxy " +
	"$GOPROXY\n```\n\n```text\nproxy off\n```\n\n```sh\necho $x $PWD\necho proxy $GOPROXY\nkill " +
	"$!\n```\n\n```text\n1 /\nproxy direct\n```\n"

// Blocks run in one shell, in the background if marked, and their outputs are compared.
func TestBlocksRunInOneShell(t *testing.T) {
	all := blocks(t, "SAMPLE.md", sample)
	if len(all) != 4 || all[0].at != "SAMPLE.md:3" || all[1].info != "sh background" {
		t.Fatalf("blocks: %+v", all)
	}
	dir := t.TempDir()
	shell := exec.CommandContext(t.Context(), "bash", "-c", script(all, dir))
	shell.Env = append(os.Environ(), "GOPROXY=direct")
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, b := range all {
		got, err := os.ReadFile(logName(dir, i))
		if err != nil {
			t.Fatal(err)
		}
		if line, ok := shows(got, b.output); !ok {
			t.Errorf("block %d does not show %q:\n%s", i, line, got)
		}
	}
	if _, ok := shows([]byte("one\ntwo\n"), []string{"two", "one"}); ok {
		t.Error("outputs in another order pass")
	}
}

func TestAFailingBlockFails(t *testing.T) {
	for name, text := range map[string]string{
		"command":    "```sh\nfalse\n```\n",
		"pipe":       "```sh\nfalse | cat\n```\n",
		"background": "```sh background\nexit 3\n```\n```text\nnever\n```\n",
		"mark":       "```sh whatever\ntrue\n```\n",
	} {
		out, err := exec.CommandContext(t.Context(), "bash", "-c", script(blocks(t, "SAMPLE.md", text),
			t.TempDir())).CombinedOutput()
		if err == nil {
			t.Errorf("%s: passes:\n%s", name, out)
		}
		if strings.Contains(string(out), "syntax error") {
			t.Errorf("%s: %s", name, out)
		}
	}
}
