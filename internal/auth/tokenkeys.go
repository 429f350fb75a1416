package auth

import (
	"fmt"
	"slices"
)

// maxTokenKeys bounds the numbers of token keys: daily rotation for 27 years.
const maxTokenKeys = 10_000

// tokenKey is one of the secrets that tokens are made with. Its number stands
// in each token and on each fact, so that a leak can be scoped.
type tokenKey struct {
	id       uint32
	retired  bool
	secret   [secretBytes]byte
	byTrial  derivedKeys[*macKey]
	operator *macKey
}

// newTokenKey returns key number id. No secret means a retired one.
func newTokenKey(id uint32, secret []byte) *tokenKey {
	if len(secret) == 0 {
		return &tokenKey{id: id, retired: true}
	}
	k := &tokenKey{id: id, secret: [secretBytes]byte(secret)}
	k.operator = newMACKey(derive(secret, operatorInfo, ""))
	return k
}

// forTrial returns the trial's key, and whether it is remembered already.
func (k *tokenKey) forTrial(trial string) (key *macKey, known bool) {
	if key, known = k.byTrial.get(trial); !known {
		key = newMACKey(derive(k.secret[:], macInfo, trial))
	}
	return key, known
}

// tokenKeys is every token key by number, number 1 first, without gaps.
type tokenKeys []*tokenKey

func (t tokenKeys) current() *tokenKey { return t[len(t)-1] }

// find returns the key with this number, nil if there is none that verifies.
func (t tokenKeys) find(id uint32) *tokenKey {
	if id == 0 || uint64(id) > uint64(len(t)) || t[id-1].retired {
		return nil
	}
	return t[id-1]
}

// TokenKey says how a token key is used.
type TokenKey struct {
	ID      uint32
	Current bool // new tokens are made with it
	Retired bool // its tokens verify no more
}

// TokenKeys lists the token keys, number 1 first.
func (k *Keys) TokenKeys() []TokenKey {
	keys := *k.token.Load()
	list := make([]TokenKey, len(keys))
	for i, key := range keys {
		list[i] = TokenKey{ID: key.id, Current: i == len(keys)-1, Retired: key.retired}
	}
	return list
}

// NewTokenKey makes a token key, durable before it returns, and uses it for
// every token from now on. Tokens of older keys stay valid.
func (k *Keys) NewTokenKey() (id uint32, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.name != "" {
		return 0, fmt.Errorf("make a token key: %w", k.offline())
	}
	keys := *k.token.Load()
	id = uint32(len(keys)) + 1
	if id > maxTokenKeys {
		return 0, fmt.Errorf("make a token key: there are %d already", maxTokenKeys)
	}
	secret := newSecret()
	if err := writeKeyFile(k.dir, tagMAC, tokenFile(id), k.root, secret); err != nil {
		return 0, err
	}
	keys = append(slices.Clone(keys), newTokenKey(id, secret))
	k.token.Store(&keys)
	return id, nil
}

// RetireTokenKey destroys a token key that leaked: its tokens are refused from
// now on ([ErrUnknownKey]) and their phones need new ones. Its number is never
// used again. The current key cannot be retired: a new one takes over first.
func (k *Keys) RetireTokenKey(id uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.name != "" {
		return fmt.Errorf("retire a token key: %w", k.offline())
	}
	keys := *k.token.Load()
	switch {
	case id == 0 || uint64(id) > uint64(len(keys)):
		return fmt.Errorf("there is no token key %d: the newest is %d", id, keys.current().id)
	case keys[id-1].retired:
		return nil
	case keys[id-1] == keys.current():
		return fmt.Errorf("token key %d is the current one: let a newer key take over first (tidegate keys rotate --tokens)", id)
	}
	if err := writeKeyFile(k.dir, tagMACRetired, tokenFile(id), k.root, nil); err != nil {
		return err
	}
	keys = slices.Clone(keys)
	keys[id-1] = newTokenKey(id, nil)
	k.token.Store(&keys)
	return nil
}
