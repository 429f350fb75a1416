package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A key file is one line of ASCII: a tag that names its purpose, a blank, and
// unpadded base64url of the payload followed by an 8-byte check. The check is
// the beginning of
//
//	SHA-256("tidegate-key-file-v1" ‖ 0x00 ‖ tag ‖ 0x00 ‖ file name ‖ 0x00 ‖ root public key ‖ payload)
//
// so that damage, a renamed file and a file of another installation are all
// noticed before a key is used. It protects against accidents, not against
// somebody who can write here: that person has the keys.
const (
	tagRoot       = "tidegate-root-key-v1"
	tagRootPublic = "tidegate-root-public-v1"
	tagSigning    = "tidegate-signing-key-v1"
	tagMAC        = "tidegate-token-key-v1"
	tagMACRetired = "tidegate-token-key-retired-v1"
	tagMeaning    = "tidegate-meaning-key-v1"
	tagBundle     = "tidegate-bundle-v1"
	tagIssued     = "tidegate-issued-key-v1"

	checkTag   = "tidegate-key-file-v1"
	checkBytes = 8

	maxKeyFileBytes = 4096
)

// KeyFileError says what is wrong with a file or folder of keys and what to do
// about it. Its text is one sentence and holds nothing of a key.
type KeyFileError struct {
	Path    string
	Problem string // what is wrong, after the path
	Remedy  string // what to do, in the imperative
	Err     error  // the cause, nil if there is none beyond the problem
}

// Error is the sentence.
func (e *KeyFileError) Error() string {
	return e.Path + " " + e.Problem + ": " + e.Remedy
}

// Unwrap returns the cause.
func (e *KeyFileError) Unwrap() error { return e.Err }

const restoreIt = "restore it from the backup of this installation's keys"

// check binds a payload to its purpose, its name and its installation.
func check(tag, name string, root, payload []byte) []byte {
	h := sha256.New()
	for _, part := range []string{checkTag, tag, name} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(root)
	h.Write(payload)
	return h.Sum(nil)[:checkBytes]
}

// encodeKeyFile is the content of a key file.
func encodeKeyFile(tag, name string, root, payload []byte) []byte {
	sealed := append(bytes.Clone(payload), check(tag, name, root, payload)...)
	line := append([]byte(tag), ' ')
	line = base64.RawURLEncoding.AppendEncode(line, sealed)
	return append(line, '\n')
}

var strictBase64 = base64.RawURLEncoding.Strict()

// keyFile is the decoded content of a key file whose check is still to be made
// against the root key.
type keyFile struct {
	path, tag      string
	payload, check []byte
}

// anyLength is the length of a payload that ends with a name.
const anyLength = -1

// readKeyFile reads one key file. The tag must be one of those given, which
// also say how long each payload is.
func readKeyFile(path string, want map[string]int) (*keyFile, error) {
	content, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil, &KeyFileError{Path: path, Problem: "is empty", Remedy: restoreIt}
	}
	damaged := &KeyFileError{Path: path, Problem: "is damaged", Remedy: restoreIt}
	line, ok := strings.CutSuffix(string(content), "\n")
	if !ok {
		return nil, damaged
	}
	tag, text, ok := strings.Cut(line, " ")
	if !ok {
		return nil, damaged
	}
	size, ok := want[tag]
	if !ok {
		if !strings.HasPrefix(tag, "tidegate-") {
			return nil, damaged
		}
		return nil, &KeyFileError{Path: path, Problem: "holds another kind of key than its name says", Remedy: restoreIt}
	}
	if strings.ContainsAny(text, "\r\n") { // the decoder would skip them
		return nil, damaged
	}
	sealed, err := strictBase64.DecodeString(text)
	if err == nil && size == anyLength {
		size = len(sealed) - checkBytes
	}
	if err != nil || size < 0 || len(sealed) != size+checkBytes {
		return nil, damaged
	}
	return &keyFile{path: path, tag: tag, payload: sealed[:size], check: sealed[size:]}, nil
}

// verify makes the check against the root key of this installation.
func (f *keyFile) verify(root []byte) error {
	want := check(f.tag, filepath.Base(f.path), root, f.payload)
	if subtle.ConstantTimeCompare(want, f.check) != 1 {
		return &KeyFileError{
			Path: f.path, Problem: "is damaged, was renamed, or belongs to another installation than root.pub",
			Remedy: restoreIt,
		}
	}
	return nil
}

// readPrivate reads a small file that must belong to this user alone.
func readPrivate(path string) ([]byte, error) {
	// Asked before opening: opening a named pipe would wait for a writer.
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &KeyFileError{Path: path, Problem: "is missing", Remedy: restoreIt, Err: err}
	case err != nil:
		return nil, unreadable(path, err)
	case !info.Mode().IsRegular():
		return nil, &KeyFileError{Path: path, Problem: "is not a regular file", Remedy: restoreIt}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if info, err = f.Stat(); err != nil {
		return nil, unreadable(path, err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	if len(content) > maxKeyFileBytes {
		return nil, &KeyFileError{Path: path, Problem: "is longer than any key file", Remedy: restoreIt}
	}
	return content, nil
}

func unreadable(path string, err error) error {
	var cause *fs.PathError
	if errors.As(err, &cause) { // the path is said once
		err = cause.Err
	}
	return &KeyFileError{
		Path: path, Problem: fmt.Sprintf("cannot be read (%v)", err),
		Remedy: "run tidegate as the user who owns it, and check the disk", Err: err,
	}
}

// checkPrivate refuses what others could read or change, or what is not ours.
func checkPrivate(path string, info fs.FileInfo) error {
	mode := "600"
	if info.IsDir() {
		mode = "700"
	}
	if uid, foreign := foreignOwner(info); foreign {
		return &KeyFileError{
			Path: path, Problem: fmt.Sprintf("belongs to user %d, tidegate runs as user %d", uid, os.Geteuid()),
			Remedy: fmt.Sprintf("run tidegate as user %d, or chown %d %s", uid, os.Geteuid(), shellQuote(path)),
		}
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 && permissionsMatter {
		return &KeyFileError{
			Path: path, Problem: fmt.Sprintf("is open to other users (mode %04o)", perm),
			Remedy: fmt.Sprintf("run chmod %s %s, and rotate the key if others may have read it", mode, shellQuote(path)),
		}
	}
	return nil
}

// shellQuote makes a path safe to paste.
func shellQuote(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=@", r))
	}) < 0
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// writeKeyFile writes a key file so that it is durable under its name when it
// returns nil.
func writeKeyFile(dir, tag, name string, root, payload []byte) error {
	return writePrivate(dir, name, encodeKeyFile(tag, name, root, payload))
}

// writePrivate writes a file of this user's: temporary file, fsync, rename,
// fsync of the folder. A file that is half written never bears the name.
func writePrivate(dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	fail := func(err error) error { return fmt.Errorf("write key file %s: %w", path, err) }
	temp := filepath.Join(dir, temporaryPrefix+name)
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed: never used
		return fail(err)
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fail(err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return fail(errors.Join(err, os.Remove(temp)))
	}
	if err := syncDir(dir); err != nil {
		return fail(err)
	}
	return nil
}

// temporaryPrefix begins the names of files that are not yet keys.
const temporaryPrefix = ".new-"
