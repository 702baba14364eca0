package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// public are the packages that other modules import.
var public = []string{"host", "host/budget", "host/client", "host/service"}

// An importer of a public package can name every type that its functions take or return.
func TestPublicPackagesNameNoInternalTypes(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || !slices.Contains(public, s.dir) {
			continue
		}
		seen[s.dir] = true
		for _, d := range s.ast.Decls {
			for _, name := range internalNames(s.ast, d) {
				t.Errorf("%s: the exported part of a declaration names %s, which nobody outside can", s.name, name)
			}
		}
	}
	if len(seen) != len(public) {
		t.Errorf("of the public packages %v only %v are there", public, seen)
	}
}

// internalNames lists what the exported part of a declaration names of internal packages.
func internalNames(file *ast.File, d ast.Decl) (names []string) {
	inside := map[string]bool{}
	for _, i := range file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		inside[name] = slices.Contains(strings.Split(p, "/"), "internal")
	}
	var look func(n ast.Node)
	look = func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.StructType:
				for _, f := range n.Fields.List {
					if len(f.Names) == 0 || slices.ContainsFunc(f.Names, (*ast.Ident).IsExported) {
						look(f.Type)
					}
				}
				return false
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && inside[x.Name] {
					names = append(names, x.Name+"."+n.Sel.Name)
				}
			}
			return true
		})
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || receiver(d).IsExported()) {
			look(d.Type)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() {
					look(spec.Type)
				}
			case *ast.ValueSpec:
				if spec.Type != nil && slices.ContainsFunc(spec.Names, (*ast.Ident).IsExported) {
					look(spec.Type)
				}
			}
		}
	}
	return names
}

// receiver is the name of the type that a method belongs to.
func receiver(f *ast.FuncDecl) *ast.Ident {
	x := f.Recv.List[0].Type
	if p, ok := x.(*ast.StarExpr); ok {
		x = p.X
	}
	if g, ok := x.(*ast.IndexExpr); ok {
		x = g.X
	}
	return x.(*ast.Ident)
}
