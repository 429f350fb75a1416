package vault

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Importable is what an adapter's Import begins with: the credentials as they
// would come back, in the order of their ids, or why they cannot be kept.
func Importable(all []Credential) ([]Credential, error) {
	out := slices.Clone(all)
	for i := range out {
		c := &out[i]
		if err := c.Validate(); err != nil {
			return nil, err
		}
		for _, t := range []*time.Time{&c.Created, &c.Expires, &c.Revoked} {
			if !t.IsZero() {
				*t = time.UnixMilli(t.UnixMilli()).UTC()
			}
		}
	}
	slices.SortFunc(out, func(a, b Credential) int { return strings.Compare(a.ID, b.ID) })
	for i := 1; i < len(out); i++ {
		if out[i].ID == out[i-1].ID {
			return nil, fmt.Errorf("credential %s is there twice", out[i].ID)
		}
	}
	return out, nil
}

// A portable copy is a text file: a line of JSON that names the format and
// counts what follows, a line for each credential in the order of their ids,
// and the SHA-256 of all those lines. It goes into a vault of any kind by
// [Vault.Import].
const copyFormat = "tidegate-vault-1"

type copyHead struct {
	Format      string `json:"format"`
	Credentials int    `json:"credentials"`
}

type copyLine struct {
	ID         string    `json:"id"`
	StaffID    string    `json:"staffId"`
	SecretHash string    `json:"secretHash"` // hexadecimal
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires"`
	Revoked    time.Time `json:"revoked,omitzero"`
}

type copyTail struct {
	SHA256 string `json:"sha256"`
}

// WriteCopy writes credentials to a new file with mode 0600. It is durable,
// complete, and appears under its name only then. An existing file is never
// replaced ([ErrExists]).
func WriteCopy(path string, all []Credential) error {
	if _, err := os.Lstat(path); err == nil {
		return ErrExists
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	err := enc.Encode(copyHead{copyFormat, len(all)})
	for i := range all {
		c := &all[i]
		err = errors.Join(err, enc.Encode(copyLine{c.ID, c.StaffID, hex.EncodeToString(c.SecretHash[:]), c.Created, c.Expires, c.Revoked}))
	}
	sum := sha256.Sum256(b.Bytes())
	if err := errors.Join(err, enc.Encode(copyTail{hex.EncodeToString(sum[:])})); err != nil {
		return err
	}
	return writeNew(path, b.Bytes())
}

func writeNew(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".part-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = publish(f.Name(), path)
	}
	if rerr := os.Remove(f.Name()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if err != nil || runtime.GOOS == "windows" {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// publish gives a finished file its name and never replaces another one.
func publish(part, path string) error {
	err := os.Link(part, path)
	switch {
	case err == nil:
		return nil // the other name is removed by the caller
	case errors.Is(err, fs.ErrExist):
		return ErrExists
	}
	// No hard links on this file system: looking first is the best there is.
	if _, err := os.Lstat(path); err == nil {
		return ErrExists
	}
	return os.Rename(part, path)
}

// maxCopyLine bounds a line of a portable copy; ids are short.
const maxCopyLine = 4096

// ReadCopy reads what [WriteCopy] wrote. A file that is cut short, changed, or
// of another format is refused.
func ReadCopy(path string) ([]Credential, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	all, err := readCopy(f)
	if err != nil {
		return nil, &OpenError{Path: path, Problem: "is no whole copy of a vault", Remedy: "take another copy", Err: err}
	}
	return all, nil
}

func readCopy(r io.Reader) ([]Credential, error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxCopyLine)
	sum := sha256.New()
	next := func(v any) error {
		if !in.Scan() {
			return errors.Join(in.Err(), io.ErrUnexpectedEOF)
		}
		dec := json.NewDecoder(bytes.NewReader(in.Bytes()))
		dec.DisallowUnknownFields()
		return dec.Decode(v)
	}
	add := func() { sum.Write(append(in.Bytes(), '\n')) }
	var head copyHead
	if err := next(&head); err != nil {
		return nil, err
	}
	if head.Format != copyFormat {
		return nil, errors.New("another format")
	}
	add()
	var all []Credential
	for range head.Credentials {
		var l copyLine
		if err := next(&l); err != nil {
			return nil, err
		}
		add()
		c := Credential{ID: l.ID, StaffID: l.StaffID, Created: l.Created, Expires: l.Expires, Revoked: l.Revoked}
		hash, err := hex.DecodeString(l.SecretHash)
		if err != nil || len(hash) != len(c.SecretHash) {
			return nil, errors.New("a hash is damaged")
		}
		copy(c.SecretHash[:], hash)
		all = append(all, c)
	}
	var tail copyTail
	if err := next(&tail); err != nil {
		return nil, err
	}
	if tail.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
		return nil, errors.New("the content does not fit its sum")
	}
	if in.Scan() {
		return nil, errors.New("there is more after its end")
	}
	return Importable(all)
}
