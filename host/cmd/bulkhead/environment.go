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

// environment has the program's environment variables: those of settings, and those that look like settings
// but are none.
type environment struct {
	known   []string // the variables of all settings
	strange []string // a sentence for each other variable
}

// read collects the variables of all flags. An empty variable counts as unset: a shell script or a unit file
// may pass on variables that it does not have.
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

// texts refuses arguments, and values of settings, that are not UTF-8. The library would read each invalid
// byte as U+FFFD, so one key would be mistaken for another, and a token would be easier to guess. The error
// does not show them, as they may be secrets.
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

// check refuses variables without a setting: otherwise a host could run without a limit or token that its
// operator believes to be set.
func (e *environment) check() error {
	var errs []error
	for _, line := range e.strange {
		errs = append(errs, errors.New(line))
	}
	return errors.Join(errs...)
}

// dropEmpty makes a flag ignore its variable if that is empty. The help still names it.
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

// The variables that Kubernetes sets in each container for a service called bulkhead or bulkhead-something.
// The value distinguishes a port from a setting.
var (
	kubernetesNames = regexp.MustCompile(`_SERVICE_(HOST|PORT(_\w+)?)$`)
	kubernetesPorts = regexp.MustCompile(`_PORT(_\d+_(TCP|UDP|SCTP))?$`)
	kubernetesParts = regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)$`)
	kubernetesURL   = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// ofKubernetes reports whether Kubernetes sets a variable; otherwise it may be a misspelt setting.
func ofKubernetes(name, value string) bool {
	return kubernetesNames.MatchString(name) || kubernetesParts.MatchString(name) ||
		kubernetesPorts.MatchString(name) && kubernetesURL.MatchString(value)
}

// noSetting says that no setting has this variable, and which setting may have been meant.
func noSetting(name string, known []string) string {
	line := name + " is set in the environment, but there is no such setting"
	if near := nearest(name, known); near != "" {
		line += fmt.Sprintf("; did you mean %s?", near)
	}
	return line
}

// nearest is the name with the smallest edit distance to a text, if that distance is small.
func nearest(text string, names []string) string {
	best, distance := "", 1+min(3, max(1, (len(text)-len(envPrefix))/3))
	for _, name := range names {
		if d := editDistance(text, name, distance); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// editDistance is the number of letters that must be added, removed, replaced or swapped with their neighbour
// to turn a into b; limit if it is at least that.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
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
	return min(rows[len(a)][len(b)], limit)
}
