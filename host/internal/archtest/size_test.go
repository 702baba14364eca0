package archtest

import (
	"fmt"
	"go/ast"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// Guard rails: clear code bases of this kind have small files, short functions, small packages and few
// goroutines. Only the hard limit fails; go test -v prints the rest.
const (
	hardFileLines    = 900
	softFileP90      = 450
	softFunctionP99  = 110
	softPackageLines = 1500
)

type measured struct {
	name  string
	lines int
}

func TestSizes(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	var files, functions []measured
	packages := map[string]int{}
	var goStatements []string
	for _, s := range sources(t) {
		files = append(files, measured{s.name, s.lines})
		if s.lines > hardFileLines {
			t.Errorf("%s has %d lines; no file has more than %d", s.name, s.lines, hardFileLines)
		}
		if !s.test {
			packages[s.dir] += s.lines
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				from, to := s.fset.Position(n.Pos()), s.fset.Position(n.End())
				functions = append(functions, measured{fmt.Sprintf("%s:%d %s", s.name, from.Line, n.Name.Name),
					to.Line - from.Line + 1})
			case *ast.GoStmt:
				if r := roomOf(s.dir); !s.test && (r == nil || !r.support) {
					goStatements = append(goStatements, s.fset.Position(n.Pos()).String())
				}
			}
			return true
		})
	}
	report(t, "file", files, 90, softFileP90)
	report(t, "function", functions, 99, softFunctionP99)
	var dirs []measured
	for dir, lines := range packages {
		dirs = append(dirs, measured{dir, lines})
	}
	report(t, "package", dirs, 100, softPackageLines)
	t.Logf("%d go statements outside tests: %v", len(goStatements), goStatements)
}

// report prints a percentile and the largest members.
func report(t *testing.T, what string, all []measured, percentile, soft int) {
	slices.SortFunc(all, func(a, b measured) int { return b.lines - a.lines })
	at := all[len(all)*(100-percentile)/100]
	mark := "within"
	if at.lines > soft {
		mark = "BEYOND"
	}
	t.Logf("%d %ss: p%d has %d lines, %s the guard rail of %d; the largest: %v", len(all), what, percentile, at.lines,
		mark, soft, all[:min(3, len(all))])
}
