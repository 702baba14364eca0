package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/internal/durable"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Extension is that of files of a directory of backups.
const Extension = ".bulkhead"

// inFile names the file in an error about what is in it.
func inFile(name string, err error) error {
	if err == nil {
		return nil
	}
	return &journal.Error{Op: "backup", Kind: journal.KindOf(err), Detail: name, Err: err}
}

// Create writes a file that is there whole or not at all, whatever happens in
// between. There must not be one of that name already.
func Create(name string, write func(*os.File) error) (err error) {
	if _, err := os.Lstat(name); err == nil {
		return errorf(journal.KindInvalid, "%s is there already; backups are not written over", name)
	}
	if err := durable.RemoveLeftOf(name); err != nil {
		return err
	}
	_, err = durable.Write(name, write, durable.Keep)
	return err
}

// ManifestOf reads the manifest of a file.
func ManifestOf(name string) (*Manifest, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m, err := ReadManifest(f, info.Size())
	return m, inFile(name, err)
}

// Next says how a directory of backups goes on: the name of the next file and the
// manifest that it continues; nil if there is none yet, or it shall be a complete one.
func Next(dir string, complete bool) (name string, since *Manifest, err error) {
	names, err := list(dir)
	if err != nil {
		return "", nil, err
	}
	number := 0
	if len(names) > 0 {
		last := names[len(names)-1]
		if !complete {
			if since, err = ManifestOf(last); err != nil {
				return "", nil, err
			}
		}
		if _, err := fmt.Sscanf(filepath.Base(last), "%d"+Extension, &number); err != nil {
			return "", nil, errorf(journal.KindInvalid, "%s is not named as a file of a directory of backups is, "+
				"such as 000001%s", last, Extension)
		}
	}
	return filepath.Join(dir, fmt.Sprintf("%06d%s", number+1, Extension)), since, nil
}

// list is the files of a directory of backups, in order.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), Extension) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil // ReadDir sorts
}

// Files resolves names of files and directories of backups to files in the order
// in which they continue each other, beginning with a complete one. Of a directory
// it takes the last complete backup and what continues it.
func Files(names ...string) ([]string, error) {
	var files []string
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, name)
			continue
		}
		all, err := list(name)
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, errorf(journal.KindInvalid, "there is no backup (*%s) in %s", Extension, name)
		}
		heads, err := headsOf(all)
		if err != nil {
			return nil, err
		}
		for len(all) > 1 && slices.ContainsFunc(heads[1:], func(h Head) bool { return h.Previous == "" }) {
			all, heads = all[1:], heads[1:]
		}
		files = append(files, all...)
	}
	return order(files)
}

func headsOf(files []string) ([]Head, error) {
	heads := make([]Head, len(files))
	for i, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		heads[i], err = ReadHead(f)
		_ = f.Close() // it was only read
		if err != nil {
			return nil, inFile(name, err)
		}
	}
	return heads, nil
}

// order sorts files by what continues what. All of them must form one chain.
func order(files []string) ([]string, error) {
	heads, err := headsOf(files)
	if err != nil {
		return nil, err
	}
	var sorted []string
	for previous := ""; len(sorted) < len(files); {
		var next []int
		for i, h := range heads {
			if h.Previous == previous {
				next = append(next, i)
			}
		}
		switch {
		case len(next) == 0 && previous == "":
			return nil, errorf(journal.KindInvalid, "none of the files is a complete backup; %s continues one that "+
				"is not given", files[0])
		case len(next) == 0:
			i := slices.IndexFunc(files, func(f string) bool { return !slices.Contains(sorted, f) })
			return nil, errorf(journal.KindInvalid, "%s does not continue %s or a backup before it: one in between "+
				"is missing, or it is of another journal", files[i], sorted[len(sorted)-1])
		case len(next) > 1:
			return nil, errorf(journal.KindInvalid, "%s and %s begin at the same place: give the files of one backup "+
				"only", files[next[0]], files[next[1]])
		}
		i := next[0]
		if heads[i].Piece {
			return nil, errorf(journal.KindInvalid, "%s is a piece of a log and no backup; it can be imported",
				files[i])
		}
		sorted = append(sorted, files[i])
		previous = heads[i].ID
	}
	return sorted, nil
}
