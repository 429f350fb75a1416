package auth

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A pack is a bundle in one file of ASCII, for secret stores that hold values by
// name: its first line, then for each key file its name, a blank and its one
// line, in the order of names. The files carry their own checks.
const packHead = "tidegate-keys-pack-v1"

const maxPackBytes = 8 << 20

// Pack returns the folder of issued keys as one file. Whoever reads it has
// the keys. Only issued keys can be packed.
func (k *Keys) Pack() ([]byte, error) {
	if k.name == "" {
		return nil, errors.New("a root folder is not to be packed: issue keys from it, and pack those")
	}
	files, err := bundleFiles(k.dir)
	if err != nil {
		return nil, err
	}
	out := []byte(packHead + "\n")
	for _, f := range files {
		out = append(append(append(out, f.name...), ' '), f.content...)
	}
	return out, nil
}

// readPack reads what Pack made.
func readPack(path string) ([]rawFile, error) {
	bad := func(problem string) ([]rawFile, error) {
		return nil, &KeyFileError{Path: path, Problem: problem, Remedy: "make it again with tidegate keys pack"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close() //nolint:errcheck // only read
	content, err := io.ReadAll(io.LimitReader(f, maxPackBytes+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	body, ok := bytes.CutPrefix(content, []byte(packHead+"\n"))
	if !ok || len(content) > maxPackBytes {
		return bad("is no pack of keys")
	}
	var files []rawFile
	for line := range strings.Lines(string(body)) {
		name, text, _ := strings.Cut(line, " ")
		switch {
		case name == fileRoot:
			return bad("holds a root key")
		case !bundled(name) || filepath.Base(name) != name || !strings.HasSuffix(text, "\n") || len(text) > maxKeyFileBytes:
			return bad("is damaged")
		case len(files) > 0 && files[len(files)-1].name >= name:
			return bad("is damaged: its files are not in order")
		}
		if files = append(files, rawFile{name, []byte(text)}); len(files) > maxBundleFiles {
			return bad("holds more files than keys can be")
		}
	}
	return files, nil
}
