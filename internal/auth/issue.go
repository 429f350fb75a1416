package auth

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/receipt"
)

// Issued is what a root folder remembers of a signing key that it certified for
// another process. It holds no secret.
type Issued struct {
	Name        string // of the process, such as gateway-1
	Sequence    uint32 // 1 for the first key of its folder, then counted on
	Certificate receipt.Certificate
}

// An issued key's payload: sequence u32, not-before i64, public key, the root's
// signature, then the name.
const issuedBytes = 4 + 8 + ed25519.PublicKeySize + ed25519.SignatureSize

func issuedFile(keyID string) string { return "issued-" + keyID + ".pub" }

// Issue makes a signing key for the process of the given name, certifies it,
// and writes what that process needs to dir, its keys folder: root public key,
// meaning key, token keys, and the signing key, never the root key. A folder
// that holds keys of the same name gets one more signing key, which signs from
// that process's next start on, and the token keys that it lacks; a folder of
// anybody else is refused. A folder that is new appears complete or not at all.
//
// This folder remembers the certificate before anything is written to dir, so
// no key signs that could not be retired here. It needs the root key, and no
// lock on this folder: what a server changes here, it never touches. Two calls
// MUST NOT write to one dir at the same time.
func (k *Keys) Issue(dir, name string) (Issued, error) {
	fail := func(err error) (Issued, error) { return Issued{}, fmt.Errorf("issue keys for %s: %w", name, err) }
	if err := checkBundleName(name); err != nil {
		return Issued{}, err
	}
	dir = filepath.Clean(dir)
	k.mu.Lock()
	defer k.mu.Unlock()
	root, err := k.rootKey()
	if err != nil {
		return fail(err)
	}
	target, err := k.target(dir, name)
	if err != nil {
		return fail(err)
	}
	seq := uint32(1)
	if target != nil {
		seq = target.signing[len(target.signing)-1].seq + 1
	}
	key, payload, err := makeSigningKey(root, seq, time.Now())
	if err != nil {
		return fail(err)
	}
	issued := Issued{Name: name, Sequence: seq, Certificate: key.certificate}
	if err := k.remember(issued); err != nil {
		return fail(err)
	}
	if target == nil {
		err = makeFolder(dir, func(temp string) error { return k.newBundle(temp, name, payload, key.certificate.KeyID) })
	} else {
		err = k.giveTokenKeys(dir, *target.token.Load())
		if err == nil {
			err = writeKeyFile(dir, tagSigning, signingFile(key.certificate.KeyID), k.root, payload)
		}
	}
	if err != nil {
		return fail(err)
	}
	if _, err := LoadKeys(dir); err != nil { // as its process will
		return fail(err)
	}
	return issued, nil
}

// target loads the folder that keys are issued to, nil if it is yet to be made.
func (k *Keys) target(dir, name string) (*Keys, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(dir, err)
	}
	target, err := LoadKeys(dir)
	if err != nil {
		return nil, err
	}
	refuse := func(problem string) (*Keys, error) {
		return nil, &KeyFileError{Path: dir, Problem: problem, Remedy: "name another folder with --to"}
	}
	switch {
	case !k.root.Equal(target.root):
		return refuse("holds keys of another root, " + target.Fingerprint())
	case target.name == "":
		return refuse("is a root folder's own, not one that keys were issued to")
	case target.name != name:
		return refuse("holds the keys of " + target.name)
	case target.meaning != k.meaning:
		return nil, &KeyFileError{Path: filepath.Join(dir, fileMeaning), Problem: "is not the meaning key of this installation", Remedy: restoreIt}
	case len(*target.token.Load()) > len(*k.token.Load()):
		return nil, &KeyFileError{
			Path: k.dir, Problem: fmt.Sprintf("has %d token keys and %s has %d", len(*k.token.Load()), dir, len(*target.token.Load())),
			Remedy: "use the newest copy of the root folder",
		}
	}
	return target, nil
}

// remember makes the certificate of an issued key durable in the root folder.
func (k *Keys) remember(i Issued) error {
	pub, err := strictBase64.DecodeString(i.Certificate.PublicKey)
	if err != nil {
		return fmt.Errorf("public key of an issued key: %w", err)
	}
	signature, err := strictBase64.DecodeString(i.Certificate.Certificate)
	if err != nil {
		return fmt.Errorf("certificate of an issued key: %w", err)
	}
	payload := binary.BigEndian.AppendUint32(nil, i.Sequence)
	payload = binary.BigEndian.AppendUint64(payload, uint64(i.Certificate.NotBefore))
	payload = append(payload, pub...)
	payload = append(payload, signature...)
	return writeKeyFile(k.dir, tagIssued, issuedFile(i.Certificate.KeyID), k.root, append(payload, i.Name...))
}

// Issued lists the signing keys that this folder certified for others, by name
// and then by age. It reads the folder, so that a server sees what was issued
// beside it.
func (k *Keys) Issued() ([]Issued, error) {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, unreadable(k.dir, err)
	}
	var list []Issued
	for _, e := range entries {
		if ok, _ := filepath.Match(issuedFile("*"), e.Name()); !ok {
			continue
		}
		f, err := k.read(e.Name(), map[string]int{tagIssued: anyLength})
		if err != nil {
			return nil, err
		}
		i, err := decodeIssued(f, k.root)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Issued) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if a.Certificate.NotBefore != b.Certificate.NotBefore {
			return int(a.Certificate.NotBefore - b.Certificate.NotBefore)
		}
		return int(int64(a.Sequence) - int64(b.Sequence))
	})
	return list, nil
}

func decodeIssued(f *keyFile, root ed25519.PublicKey) (Issued, error) {
	bad := func(err error) (Issued, error) {
		return Issued{}, &KeyFileError{Path: f.path, Problem: "names a key that this installation's root key did not certify", Remedy: restoreIt, Err: err}
	}
	p := f.payload
	if len(p) < issuedBytes {
		return bad(nil)
	}
	pub := p[12 : 12+ed25519.PublicKeySize]
	i := Issued{
		Name: string(p[issuedBytes:]), Sequence: binary.BigEndian.Uint32(p),
		Certificate: receipt.Certificate{
			KeyID:       receipt.IDOf(pub).String(),
			PublicKey:   base64.RawURLEncoding.EncodeToString(pub),
			NotBefore:   int64(binary.BigEndian.Uint64(p[4:])),
			Certificate: base64.RawURLEncoding.EncodeToString(p[12+ed25519.PublicKeySize : issuedBytes]),
		},
	}
	if err := checkBundleName(i.Name); err != nil {
		return bad(err)
	}
	if _, err := receipt.NewKeySet(receipt.NewKeys(root, i.Certificate), receipt.Fingerprint(root)); err != nil {
		return bad(err)
	}
	return i, nil
}

// hasIssued says whether this folder certified the key for another process.
func (k *Keys) hasIssued(id receipt.KeyID) (bool, error) {
	list, err := k.Issued()
	return slices.ContainsFunc(list, func(i Issued) bool { return i.Certificate.KeyID == id.String() }), err
}
