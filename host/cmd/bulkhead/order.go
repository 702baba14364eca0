package main

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// inOrder moves flags of the command that come before it to the place after it, where the library expects
// them. Flags of all commands stay in place, and the library refuses unknown ones.
func inOrder(k *kong.Kong, args []string) []string {
	var stay, move []string
	at := 0
	for at < len(args) {
		name, isFlag := strings.CutPrefix(args[at], "--")
		name, _, whole := strings.Cut(name, "=")
		takesValue, known := valueOf(k.Model.Node, name)
		if !isFlag || !known {
			break
		}
		to := &move
		if hasFlag(k.Model.Node, name) {
			to = &stay
		}
		end := at + 1
		if takesValue && !whole {
			end = min(end+1, len(args))
		}
		*to = append(*to, args[at:end]...)
		at = end
	}
	rest := args[at:]
	end := slices.Index(rest, "--")
	if end < 0 {
		end = len(rest)
	}
	return slices.Concat(stay, rest[:end], move, rest[end:])
}

func hasFlag(n *kong.Node, name string) bool {
	return slices.ContainsFunc(n.Flags, func(f *kong.Flag) bool { return f.Name == name })
}

// valueOf reports whether a flag with that name exists, and whether it takes a value; false if commands
// differ in that.
func valueOf(root *kong.Node, name string) (takes, known bool) {
	agreed := true
	_ = kong.Visit(root, func(v kong.Visitable, next kong.Next) error {
		if f, ok := v.(*kong.Flag); ok && f.Name == name {
			agreed = agreed && (!known || takes != f.IsBool())
			takes, known = !f.IsBool(), true
		}
		return next(nil)
	})
	return takes, known && agreed
}
