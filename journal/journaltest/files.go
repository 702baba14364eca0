package journaltest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// Files are files of a journal, by their path below its directory.
type Files map[string]File

// File is the content of a file without the zeros at its end, which are mostly a hole, and its size with them.
type File struct {
	Content []byte
	Size    int64
}

// ReadFiles reads the files in dir that match one of the patterns of [filepath.Glob]. Directories are left out. A
// pattern without * is the name of a file that has to be there. A file that is removed meanwhile is an error.
func ReadFiles(dir string, patterns ...string) (Files, error) {
	all := Files{}
	for _, pattern := range patterns {
		paths := []string{filepath.Join(dir, pattern)}
		if strings.Contains(pattern, "*") {
			var err error
			if paths, err = filepath.Glob(paths[0]); err != nil {
				return nil, err
			}
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				continue
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return nil, err
			}
			all[name] = File{bytes.Clone(bytes.TrimRight(content, "\x00")), int64(len(content))}
		}
	}
	return all, nil
}

// Write makes the files in dir, and removes all others from it.
func (all Files) Write(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return all.WriteInto(dir)
}

// WriteInto makes the files in dir, in place of those with their names.
func (all Files) WriteInto(dir string) error {
	for name, f := range all {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.WriteFile(path, f.Content, 0o600)
		}
		if err == nil {
			err = os.Truncate(path, f.Size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
