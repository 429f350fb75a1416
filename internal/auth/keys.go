package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
)

const (
	fileRoot       = "root.key"
	fileRootPublic = "root.pub"
	fileMeaning    = "meaning.key"

	secretBytes = 32
	// A signing key's payload: sequence u32, not-before i64, seed, the root's signature.
	signingBytes = 4 + 8 + ed25519.SeedSize + ed25519.SignatureSize
)

// Keys is the folder of keys of one installation, read and checked. The root
// key itself is read only for the moment of certifying, so it may be kept
// offline at all other times; root.pub stays.
//
// Keys is safe for concurrent use. Two processes MUST NOT change one folder at
// the same time: whoever changes it holds the data folder's LOCK.
type Keys struct {
	dir     string
	root    ed25519.PublicKey
	meaning [secretBytes]byte
	derived derivedKeys[epro.MeaningKey]

	// Every request reads the token keys: a list that is replaced, never changed.
	token atomic.Pointer[tokenKeys]

	name string // of whom these keys were issued to; "" in a root folder

	mu      sync.RWMutex // guards what follows, and changes of the folder
	signing []signingKey // ascending sequence
	current int          // index of the key that signs
}

type signingKey struct {
	seq         uint32
	signer      *receipt.Signer
	certificate receipt.Certificate
}

// ErrRootOffline says that something needs the root key, which is not in the
// folder.
var ErrRootOffline = errors.New("the root key is offline: put root.key back into the keys folder (mode 600) for this command, and take it away again after it")

// InitKeys makes the keys of a new installation in dir, which must not exist
// or be empty: root key, first signing key with its certificate, first token
// key, meaning key. The folder appears complete and durable, or not at all.
func InitKeys(dir string) (*Keys, error) {
	dir = filepath.Clean(dir)
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, &KeyFileError{
			Path: dir, Problem: "already has files in it",
			Remedy: "start without making keys, or choose another data folder",
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unreadable(dir, err)
	}
	if err := makeFolder(dir, fillNewFolder); err != nil {
		return nil, fmt.Errorf("make the keys of a new installation in %s: %w", dir, err)
	}
	return LoadKeys(dir)
}

// makeFolder makes a folder of keys in the place of dir, which does not exist or
// is empty: complete and durable, or not at all.
func makeFolder(dir string, fill func(temp string) error) error {
	parent, temp := filepath.Dir(dir), filepath.Join(filepath.Dir(dir), temporaryPrefix+filepath.Base(dir))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(temp); err != nil { // of a run that was killed: nothing ever used it
		return err
	}
	if err := os.Mkdir(temp, 0o700); err != nil {
		return err
	}
	err := fill(temp)
	if err == nil {
		if err = os.Remove(dir); errors.Is(err, fs.ErrNotExist) { // an empty folder, surely
			err = nil
		}
	}
	if err == nil {
		err = os.Rename(temp, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return syncDir(parent)
}

func fillNewFolder(dir string) error {
	pub, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if err := writeKeyFile(dir, tagRoot, fileRoot, pub, root.Seed()); err != nil {
		return err
	}
	if err := writeKeyFile(dir, tagRootPublic, fileRootPublic, pub, pub); err != nil {
		return err
	}
	if err := writeKeyFile(dir, tagMeaning, fileMeaning, pub, newSecret()); err != nil {
		return err
	}
	if err := writeKeyFile(dir, tagMAC, tokenFile(1), pub, newSecret()); err != nil {
		return err
	}
	_, err = writeSigningKey(dir, root, 1, time.Now())
	return err
}

func newSecret() []byte {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails: the process ends instead
	return b
}

// writeSigningKey makes a signing key and its certificate in one file, so that
// there is never the one without the other.
func writeSigningKey(dir string, root ed25519.PrivateKey, seq uint32, now time.Time) (signingKey, error) {
	key, payload, err := makeSigningKey(root, seq, now)
	if err != nil {
		return signingKey{}, err
	}
	return key, writeKeyFile(dir, tagSigning, signingFile(key.certificate.KeyID), root.Public().(ed25519.PublicKey), payload)
}

// makeSigningKey makes a signing key and its certificate, and the payload of
// the file that holds both.
func makeSigningKey(root ed25519.PrivateKey, seq uint32, now time.Time) (signingKey, []byte, error) {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return signingKey{}, nil, err
	}
	cert := receipt.Certify(root, pub, now)
	signature, err := strictBase64.DecodeString(cert.Certificate)
	if err != nil {
		return signingKey{}, nil, fmt.Errorf("certificate of a new signing key: %w", err)
	}
	payload := binary.BigEndian.AppendUint32(nil, seq)
	payload = binary.BigEndian.AppendUint64(payload, uint64(cert.NotBefore))
	payload = append(payload, private.Seed()...)
	payload = append(payload, signature...)
	return signingKey{seq: seq, signer: receipt.NewSigner(private), certificate: cert}, payload, nil
}

func signingFile(keyID string) string { return "signing-" + keyID + ".key" }

// RootPublic is the public half of the root key.
func (k *Keys) RootPublic() ed25519.PublicKey { return append(ed25519.PublicKey(nil), k.root...) }

// Fingerprint names the root key; see [receipt.Fingerprint].
func (k *Keys) Fingerprint() string { return receipt.Fingerprint(k.root) }

// Signer signs with the current signing key: the newest one, unless a newer
// one still waits for [Keys.UseSigningKey].
func (k *Keys) Signer() *receipt.Signer {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.signing[k.current].signer
}

// Certificates lists the certificates of every signing key in the folder, the
// oldest first. Each must be in the journal as a key.added fact before its
// key signs anything. Whoever starts a server adds those that are not: a
// process may have been killed between making a key and telling it.
func (k *Keys) Certificates() []receipt.Certificate {
	k.mu.RLock()
	defer k.mu.RUnlock()
	certs := make([]receipt.Certificate, len(k.signing))
	for i := range k.signing {
		certs[i] = k.signing[i].certificate
	}
	return certs
}

// NewSigningKey makes a signing key, certifies it with the root key and makes
// both durable. It does not sign yet: the caller appends the certificate as a
// key.added fact and then calls [Keys.UseSigningKey], so that no receipt is
// ever signed by a key that the journal does not know.
func (k *Keys) NewSigningKey() (receipt.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	root, err := k.rootKey()
	if err != nil {
		return receipt.Certificate{}, fmt.Errorf("certify a new signing key: %w", err)
	}
	key, err := writeSigningKey(k.dir, root, k.signing[len(k.signing)-1].seq+1, time.Now())
	if err != nil {
		return receipt.Certificate{}, err
	}
	k.signing = append(k.signing, key)
	return key.certificate, nil
}

// UseSigningKey makes the key with this id the one that signs. Only a newer
// key can take over from an older one.
func (k *Keys) UseSigningKey(id receipt.KeyID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i, err := k.find(id)
	if err != nil {
		return err
	}
	if i < k.current {
		return fmt.Errorf("signing key %s is older than the current one: make a new key instead", id)
	}
	k.current = i
	return nil
}

func (k *Keys) find(id receipt.KeyID) (int, error) {
	for i := range k.signing {
		if k.signing[i].signer.KeyID() == id {
			return i, nil
		}
	}
	return 0, fmt.Errorf("there is no signing key %s in %s: `tidegate keys list` shows those there are", id, k.dir)
}

// Retire makes the root key's word that a signing key signs no more, for a
// key.retired fact. The reason is [receipt.RetiredRotated] or
// [receipt.RetiredCompromised]. The key that signs now cannot be retired: a
// new one takes over first. The file stays: its certificate is still needed.
// A key that was issued ([Keys.Issue]) can be retired at any time: only its
// holder knows whether it still signs, and refuses to start when it does.
func (k *Keys) Retire(id receipt.KeyID, reason string) (receipt.Retirement, error) {
	if reason != receipt.RetiredRotated && reason != receipt.RetiredCompromised {
		return receipt.Retirement{}, fmt.Errorf("retire signing key %s: the reason must be %q or %q", id, receipt.RetiredRotated, receipt.RetiredCompromised)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	i, unknown := k.find(id)
	if unknown != nil {
		if issued, err := k.hasIssued(id); err != nil || !issued {
			return receipt.Retirement{}, errors.Join(unknown, err)
		}
	} else if i >= k.current {
		return receipt.Retirement{}, fmt.Errorf("signing key %s is the current or a newer one: let a newer key take over first (tidegate keys rotate)", id)
	}
	root, err := k.rootKey()
	if err != nil {
		return receipt.Retirement{}, fmt.Errorf("retire signing key %s: %w", id, err)
	}
	return receipt.Retire(root, id, time.Now(), reason), nil
}

// RootOnline says whether the root key lies in the folder, readable and sound.
// nil means yes; [ErrRootOffline] that it was taken away.
func (k *Keys) RootOnline() error {
	_, err := k.rootKey()
	return err
}

// rootKey reads the root key for one use.
func (k *Keys) rootKey() (ed25519.PrivateKey, error) {
	f, err := readKeyFile(filepath.Join(k.dir, fileRoot), map[string]int{tagRoot: ed25519.SeedSize})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, k.offline()
	}
	if err != nil {
		return nil, err
	}
	if err := f.verify(k.root); err != nil {
		return nil, err
	}
	private := ed25519.NewKeyFromSeed(f.payload)
	if !k.root.Equal(private.Public()) {
		return nil, &KeyFileError{Path: f.path, Problem: "does not fit root.pub", Remedy: restoreIt}
	}
	return private, nil
}

// MeaningKey is the key of a trial's meaning digests (docs/format.md), derived
// from the one meaning key of the installation, which never rotates:
// HKDF-SHA-256, no salt, info "tidegate-meaning-v1|" ‖ trial.
func (k *Keys) MeaningKey(trial string) epro.MeaningKey {
	if key, ok := k.derived.get(trial); ok {
		return key
	}
	key := epro.MeaningKey(derive(k.meaning[:], meaningInfo, trial))
	k.derived.put(trial, key)
	return key
}

// String names the installation and holds nothing secret.
func (k *Keys) String() string { return "keys of root " + k.Fingerprint() }

// Format keeps every verb, %#v too, from printing a key.
func (k *Keys) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.String()) }

// LogValue keeps a logger from printing a key.
func (k *Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }
