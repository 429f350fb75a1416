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
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/internal/receipt"
)

// LoadKeys reads the keys of an installation. Whatever is missing, damaged,
// misplaced, open to other users or somebody else's is refused with a
// [KeyFileError] that says what to do. Nothing is ever made anew here: a new
// meaning key would turn every repeated report into a conflict, a new root key
// would orphan every receipt.
func LoadKeys(dir string) (*Keys, error) {
	dir = filepath.Clean(dir)
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	k := &Keys{dir: dir}
	pub, err := readKeyFile(filepath.Join(dir, fileRootPublic), map[string]int{tagRootPublic: ed25519.PublicKeySize})
	if err != nil {
		return nil, err
	}
	if err := pub.verify(pub.payload); err != nil {
		return nil, err
	}
	k.root = pub.payload
	if k.name, err = k.bundleName(); err != nil {
		return nil, err
	}
	if err := k.RootOnline(); err != nil && !errors.Is(err, ErrRootOffline) {
		return nil, err
	}
	meaning, err := k.read(fileMeaning, map[string]int{tagMeaning: secretBytes})
	if err != nil {
		return nil, err
	}
	if k.name != "" && k.RootOnline() == nil {
		return nil, &KeyFileError{
			Path: filepath.Join(dir, fileRoot), Problem: "lies beside keys that were issued for " + k.name,
			Remedy: "move it back to the root folder: a process that takes reports must not hold it",
		}
	}
	k.meaning = [secretBytes]byte(meaning.payload)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, unreadable(dir, err)
	}
	if err := k.loadSigning(entries); err != nil {
		return nil, err
	}
	return k, k.loadToken(entries)
}

func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &KeyFileError{Path: dir, Problem: "is missing", Remedy: "restore the keys folder from its backup", Err: err}
	case err != nil:
		return unreadable(dir, err)
	case !info.IsDir():
		return &KeyFileError{Path: dir, Problem: "is not a folder", Remedy: "restore the keys folder from its backup"}
	}
	return checkPrivate(dir, info)
}

// read reads and checks a file of this installation.
func (k *Keys) read(name string, want map[string]int) (*keyFile, error) {
	f, err := readKeyFile(filepath.Join(k.dir, name), want)
	if err != nil {
		return nil, err
	}
	return f, f.verify(k.root)
}

func (k *Keys) loadSigning(entries []fs.DirEntry) error {
	for _, e := range entries {
		if ok, _ := filepath.Match(signingFile("*"), e.Name()); !ok {
			continue
		}
		f, err := k.read(e.Name(), map[string]int{tagSigning: signingBytes})
		if err != nil {
			return err
		}
		key, err := decodeSigning(f, k.root)
		if err != nil {
			return err
		}
		k.signing = append(k.signing, key)
	}
	if len(k.signing) == 0 {
		return &KeyFileError{
			Path: filepath.Join(k.dir, "signing-….key"), Problem: "is missing (there is no signing key at all)",
			Remedy: "restore the keys folder from its backup",
		}
	}
	slices.SortFunc(k.signing, func(a, b signingKey) int { return int(int64(a.seq) - int64(b.seq)) })
	// Each key has the number after its elder's, so a file that was lost is noticed.
	for i := range k.signing {
		if k.signing[i].seq != uint32(i)+1 {
			return &KeyFileError{
				Path: k.dir, Problem: fmt.Sprintf("lacks signing key number %d, or has it twice", i+1),
				Remedy: "restore the keys folder from its backup",
			}
		}
	}
	k.current = len(k.signing) - 1
	return nil
}

func decodeSigning(f *keyFile, root ed25519.PublicKey) (signingKey, error) {
	p := f.payload
	seq, notBefore := binary.BigEndian.Uint32(p), int64(binary.BigEndian.Uint64(p[4:]))
	private := ed25519.NewKeyFromSeed(p[12 : 12+ed25519.SeedSize])
	signer := receipt.NewSigner(private)
	cert := receipt.Certificate{
		KeyID:       signer.KeyID().String(),
		PublicKey:   base64.RawURLEncoding.EncodeToString(private.Public().(ed25519.PublicKey)),
		NotBefore:   notBefore,
		Certificate: base64.RawURLEncoding.EncodeToString(p[12+ed25519.SeedSize:]),
	}
	// The same check that an auditor will make.
	if _, err := receipt.NewKeySet(receipt.NewKeys(root, cert), receipt.Fingerprint(root)); err != nil {
		return signingKey{}, &KeyFileError{Path: f.path, Problem: "holds a key that this installation's root key did not certify", Remedy: restoreIt, Err: err}
	}
	return signingKey{seq: seq, signer: signer, certificate: cert}, nil
}

func tokenFile(n uint32) string { return "token-" + strconv.FormatUint(uint64(n), 10) + ".key" }

func (k *Keys) loadToken(entries []fs.DirEntry) error {
	var last uint32
	for _, e := range entries {
		text, ok := strings.CutPrefix(e.Name(), "token-")
		if !ok {
			continue
		}
		if text, ok = strings.CutSuffix(text, ".key"); !ok {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || n == 0 || tokenFile(uint32(n)) != e.Name() {
			return &KeyFileError{Path: filepath.Join(k.dir, e.Name()), Problem: "is not named token-<number>.key", Remedy: "give it back the name it had, or move it elsewhere"}
		}
		last = max(last, uint32(n))
	}
	if last > maxTokenKeys {
		return &KeyFileError{Path: filepath.Join(k.dir, tokenFile(last)), Problem: fmt.Sprintf("has a number beyond %d", maxTokenKeys), Remedy: "give it back the name it had, or move it elsewhere"}
	}
	keys := make(tokenKeys, 0, last)
	// Numbers have no gaps, so a file that was lost is noticed: at least number 1 must be there.
	for n := uint32(1); n <= max(last, 1); n++ {
		f, err := k.read(tokenFile(n), map[string]int{tagMAC: secretBytes, tagMACRetired: 0})
		if err != nil {
			return err
		}
		keys = append(keys, newTokenKey(n, f.payload))
	}
	if keys.current().retired {
		return &KeyFileError{Path: filepath.Join(k.dir, tokenFile(last)), Problem: "is retired and there is no newer token key", Remedy: "restore the keys folder from its backup"}
	}
	k.token.Store(&keys)
	return nil
}
