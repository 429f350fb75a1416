package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/internal/receipt"
)

// A bundle is a folder of keys that was issued for one process of many: the
// installation's token keys, meaning key and root public key, and signing keys
// of its own. bundle.name says for whom, and makes it a bundle.
const fileBundle = "bundle.name"

// maxBundleName bounds the names of bundles, in bytes.
const maxBundleName = 63

// Name is the name that these keys were issued for, "" in a root folder, which
// is every folder that [InitKeys] made.
func (k *Keys) Name() string { return k.name }

// checkBundleName refuses what could not stand in a file name, a host name and
// a log line alike.
func checkBundleName(name string) error {
	bad := strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}) >= 0
	if bad || name == "" || len(name) > maxBundleName || strings.Trim(name, "-.") != name {
		return fmt.Errorf("%q cannot name issued keys: use 1 to %d of a-z, 0-9, - and ., beginning and ending with a letter or digit, such as gateway-1", name, maxBundleName)
	}
	return nil
}

// CheckName says what is wrong with a name that keys are to be issued to, before
// anything is done.
func CheckName(name string) error { return checkBundleName(name) }

// bundleName reads for whom the keys were issued, "" if for nobody.
func (k *Keys) bundleName() (string, error) {
	f, err := k.read(fileBundle, map[string]int{tagBundle: anyLength})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if err := checkBundleName(string(f.payload)); err != nil {
		return "", &KeyFileError{Path: f.path, Problem: "names nobody that keys are issued for", Remedy: restoreIt, Err: err}
	}
	return string(f.payload), nil
}

// issuedError is ErrRootOffline where putting root.key back would be wrong.
type issuedError struct{ name string }

func (e issuedError) Error() string {
	return "these keys were issued for " + e.name + ", without the root key: do this in the root folder, " +
		"and renew them with `tidegate keys issue --data ROOT --name " + e.name + " --to` this folder"
}

func (issuedError) Is(target error) bool { return target == ErrRootOffline }

// offline says that the root key is not here, and where to go with what needs it.
func (k *Keys) offline() error {
	if k.name != "" {
		return issuedError{k.name}
	}
	return ErrRootOffline
}

// ErrOwnKeyRetired says that the key that would sign was retired.
var ErrOwnKeyRetired = errors.New("the signing key of this process was retired")

// Usable returns an error that wraps [ErrOwnKeyRetired] when the key that signs
// is among those retired. The certificates come from facts: what receipts such
// a key would sign, nobody could rely on. A list that lacks the key says
// nothing against it.
func (k *Keys) Usable(certs []receipt.Certificate) error {
	own := k.Signer().KeyID().String()
	for i := range certs {
		r := certs[i].Retired
		if certs[i].KeyID != own || r == nil {
			continue
		}
		do := "let a newer key take over: tidegate keys rotate"
		if k.name != "" {
			do = "issue a new one: tidegate keys issue --name " + k.name + " in the root folder, and start again with it"
		}
		return fmt.Errorf("%w: %s as %s; %s", ErrOwnKeyRetired, own, r.Reason, do)
	}
	return nil
}

// maxBundleFiles bounds what is copied: every token key there can be, and as
// many signing keys.
const maxBundleFiles = 2 * maxTokenKeys

// InstallKeys copies issued keys, a folder of them or what [Keys.Pack] made of
// it, to the folder to, for this user alone, whoever owns them where they are
// mounted (secrets of a container engine belong to root, or are links). Keys of
// the same name that are there already are replaced if they are older; any
// others are not touched. changed says whether anything was written. The caller
// holds the lock of the data folder.
func InstallKeys(from, to string) (k *Keys, changed bool, err error) {
	from, to = filepath.Clean(from), filepath.Clean(to)
	fail := func(err error) (*Keys, bool, error) {
		return nil, false, fmt.Errorf("install the keys of %s: %w", from, err)
	}
	files, err := bundleFiles(from)
	if err != nil {
		return fail(err)
	}
	old, err := installed(to)
	if err != nil {
		return fail(err)
	}
	if old != nil {
		if there, err := bundleFiles(to); err == nil && same(files, there) {
			return old, false, nil
		}
	}
	err = makeFolder(to, func(temp string) error {
		if err := writeRaw(temp, files); err != nil {
			return err
		}
		if err := checkNext(temp, old); err != nil {
			return named(err, temp, from)
		}
		// A kill from here on leaves no keys: the next installation, from the same place, brings them.
		if old != nil {
			return os.RemoveAll(to)
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	k, err = LoadKeys(to)
	return k, true, err
}

// named says a path of a copy as that of what was copied.
func named(err error, temp, from string) error {
	var refusal *KeyFileError
	if errors.As(err, &refusal) {
		refusal.Path = strings.Replace(refusal.Path, temp, from, 1)
	}
	return err
}

// installed loads the issued keys at to, nil if there are none. A folder that
// holds anything else is refused.
func installed(to string) (*Keys, error) {
	entries, err := os.ReadDir(to)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, nil
	}
	old, err := LoadKeys(to)
	if err != nil {
		return nil, err
	}
	if old.name == "" {
		return nil, &KeyFileError{Path: to, Problem: "holds keys of its own, of root " + old.Fingerprint(), Remedy: "name another data folder"}
	}
	return old, nil
}

// checkNext refuses keys that are not issued ones, and those that may not take
// the place of old.
func checkNext(dir string, old *Keys) error {
	k, err := LoadKeys(dir)
	if err != nil {
		return err
	}
	if k.name == "" {
		return errors.New("these are no issued keys (bundle.name is missing): name a folder that `tidegate keys issue` made")
	}
	if old == nil {
		return nil
	}
	if !k.root.Equal(old.root) || k.name != old.name {
		return fmt.Errorf("they are of %s under root %s, and %s holds those of %s under root %s: use another data folder",
			k.name, k.Fingerprint(), old.dir, old.name, old.Fingerprint())
	}
	mine, theirs := k.signing[k.current].certificate, old.signing[old.current].certificate
	if mine.NotBefore < theirs.NotBefore {
		return fmt.Errorf("signing key %s is older than %s, which %s holds: bring the newest ones, or move that folder away first", mine.KeyID, theirs.KeyID, old.dir)
	}
	return nil
}

// rawFile is a file of keys as it is.
type rawFile struct {
	name    string
	content []byte
}

func same(a, b []rawFile) bool {
	return slices.EqualFunc(a, b, func(x, y rawFile) bool { return x.name == y.name && bytes.Equal(x.content, y.content) })
}

// bundleFiles reads the key files of a folder, or of a pack, whoever owns them,
// by name.
func bundleFiles(dir string) ([]rawFile, error) {
	if info, err := os.Stat(dir); err == nil && info.Mode().IsRegular() {
		return readPack(dir)
	}
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
	var files []rawFile
	for _, e := range entries {
		name := e.Name()
		if name == fileRoot {
			return nil, &KeyFileError{
				Path: filepath.Join(dir, name), Problem: "is a root key",
				Remedy: "never bring it near a process that takes reports; mount what `tidegate keys issue` made",
			}
		}
		if !bundled(name) {
			continue
		}
		content, err := readSmall(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if files = append(files, rawFile{name, content}); len(files) > maxBundleFiles {
			return nil, errors.New("there are more files than keys can be")
		}
	}
	return files, nil
}

// bundled says whether a file of this name belongs to a bundle.
func bundled(name string) bool {
	switch name {
	case fileBundle, fileRootPublic, fileMeaning:
		return true
	}
	return strings.HasSuffix(name, ".key") && (strings.HasPrefix(name, "token-") || strings.HasPrefix(name, "signing-"))
}

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path) // before opening: a named pipe would wait for a writer
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFileBytes {
		return nil, &KeyFileError{Path: path, Problem: "is no key file", Remedy: restoreIt}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	content, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return content, nil
}

func writeRaw(dir string, files []rawFile) error {
	for _, f := range files {
		if err := writePrivate(dir, f.name, f.content); err != nil {
			return err
		}
	}
	return nil
}

// newBundle fills the folder of keys issued for name.
func (k *Keys) newBundle(dir, name string, signing []byte, keyID string) error {
	for _, f := range []struct {
		tag, name string
		payload   []byte
	}{
		{tagRootPublic, fileRootPublic, k.root},
		{tagBundle, fileBundle, []byte(name)},
		{tagMeaning, fileMeaning, k.meaning[:]},
	} {
		if err := writeKeyFile(dir, f.tag, f.name, k.root, f.payload); err != nil {
			return err
		}
	}
	if err := k.giveTokenKeys(dir, nil); err != nil {
		return err
	}
	return writeKeyFile(dir, tagSigning, signingFile(keyID), k.root, signing)
}

// giveTokenKeys writes the token keys that a bundle lacks, then those that were
// retired: in this order it never holds a retired one as its newest.
func (k *Keys) giveTokenKeys(dir string, has tokenKeys) error {
	write := func(key *tokenKey) error {
		if key.retired {
			return writeKeyFile(dir, tagMACRetired, tokenFile(key.id), k.root, nil)
		}
		return writeKeyFile(dir, tagMAC, tokenFile(key.id), k.root, key.secret[:])
	}
	keys := *k.token.Load()
	for _, key := range keys[min(len(has), len(keys)):] {
		if err := write(key); err != nil {
			return err
		}
	}
	for i, old := range has {
		if keys[i].retired == old.retired {
			continue
		}
		if err := write(keys[i]); err != nil {
			return err
		}
	}
	return nil
}
