package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// envPrefix begins the name of every variable that is a setting.
const envPrefix = "BULKHEAD_"

// environment is what the program makes of its environment variables: those of its
// settings, and those that look like one and are none.
type environment struct {
	known   []string // the variables of all settings
	strange []string // what is wrong with the others, a sentence for each
}

// read learns the variables of all flags. One that is empty counts as unset, as it is
// in a shell script or a unit file that passes on what it does not have.
func (e *environment) read(k *kong.Kong) error {
	err := kong.Visit(k.Model, func(n kong.Visitable, next kong.Next) error {
		if f, ok := n.(*kong.Flag); ok && !oneOff(f) {
			e.known = append(e.known, f.Envs...)
			dropEmpty(f)
		}
		return next(nil)
	})
	if err != nil {
		return err
	}
	slices.Sort(e.known)
	e.known = slices.Compact(e.known)
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, envPrefix) && value != "" && !slices.Contains(e.known, name) &&
			!ofKubernetes(name, value) {
			e.strange = append(e.strange, noSetting(name, e.known))
		}
	}
	slices.Sort(e.strange)
	return nil
}

// texts refuses arguments, and values of settings, that are not UTF-8: the library reads U+FFFD for each such byte, so
// one key would be taken for another, and a token be easier to guess. They are not shown, as they may be secrets.
func (e *environment) texts(args []string) error {
	for i, arg := range args {
		if !utf8.ValidString(arg) {
			return fmt.Errorf("argument %d is not UTF-8", i+1)
		}
	}
	for _, name := range e.known {
		if !utf8.ValidString(os.Getenv(name)) {
			return fmt.Errorf("%s in the environment is not UTF-8", name)
		}
	}
	return nil
}

// check refuses variables that no setting has: a host would run without a limit, or without the token, that somebody
// believes to be set.
func (e *environment) check() error {
	var errs []error
	for _, line := range e.strange {
		errs = append(errs, errors.New(line))
	}
	return errors.Join(errs...)
}

// dropEmpty has a flag ignore its variable if that is empty. The help still names it.
func dropEmpty(f *kong.Flag) {
	f.Envs = slices.DeleteFunc(f.Envs, func(name string) bool {
		value, set := os.LookupEnv(name)
		if set && value == "" {
			f.Help = strings.TrimSuffix(f.Help, ".") + " ($" + name + ")."
		}
		return set && value == ""
	})
	f.Value.Tag.Envs = f.Envs
}

// These are the variables with which Kubernetes tells each container of a service that is
// called bulkhead, or bulkhead-something. A port is told from a setting by its value.
var (
	kubernetesNames = regexp.MustCompile(`_SERVICE_(HOST|PORT(_\w+)?)$`)
	kubernetesPorts = regexp.MustCompile(`_PORT(_\d+_(TCP|UDP|SCTP))?$`)
	kubernetesParts = regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)$`)
	kubernetesURL   = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// ofKubernetes reports whether a variable is one that Kubernetes sets, and not a setting with a mistake.
func ofKubernetes(name, value string) bool {
	return kubernetesNames.MatchString(name) || kubernetesParts.MatchString(name) ||
		kubernetesPorts.MatchString(name) && kubernetesURL.MatchString(value)
}

// noSetting says that no setting has this variable, and which one may have been meant.
func noSetting(name string, known []string) string {
	line := name + " is set in the environment, but there is no such setting"
	if near := nearest(name, known); near != "" {
		line += fmt.Sprintf("; did you mean %s?", near)
	}
	return line
}

// nearest is the name that differs from a text by the fewest letters, if these are few.
func nearest(text string, names []string) string {
	best, distance := "", 1+min(3, max(1, (len(text)-len(envPrefix))/3))
	for _, name := range names {
		if d := editDistance(text, name, distance); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// editDistance counts the letters that have to be added, removed, replaced or swapped with their neighbour to make b
// of a; at least most if it is that many.
func editDistance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return min(rows[len(a)][len(b)], most)
}
