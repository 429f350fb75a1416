package auth

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
)

// Kind says what a credential stands for.
type Kind uint8

// The kinds. The numbers of the first three are part of the token format.
const (
	KindParticipant Kind = 1 // a participant's device
	KindRelay       Kind = 2 // a site's relay or a bulk load, which names participants
	KindOperator    Kind = 3 // whoever can read the keys folder
	KindStaff       Kind = 4 // a staff member
)

// String is the kind's word in the API and the audit.
func (k Kind) String() string {
	switch k {
	case KindParticipant:
		return "participant"
	case KindRelay:
		return "relay"
	case KindOperator:
		return "operator"
	case KindStaff:
		return "staff"
	}
	return "unknown"
}

// Scope says what a token is good for, as a set of bits.
type Scope uint8

// The scopes. The bits are part of the token format.
const (
	ScopeSubmit Scope = 1 // send own reports
	ScopeRead   Scope = 2 // see own data
	ScopeRelay  Scope = 4 // send reports of others, by name; a relay's only scope
)

// Has says whether every bit of want is in s.
func (s Scope) Has(want Scope) bool { return want != 0 && s&want == want }

// Claims is what a participant's or a relay's token says.
type Claims struct {
	Kind        Kind
	Scope       Scope
	KeyID       uint32 // number of the token key; set by minting
	Trial       string
	Shard       uint32
	Participant string   // participant's tokens
	Device      string   // participant's tokens
	Relay       string   // relay's tokens: the relay's name
	Sites       []string // relay's tokens: sorted; empty means every site of the trial
	Epoch       uint32
	Expires     time.Time // whole seconds; the token is refused from this instant on
}

// Why a credential is refused. Each is a 401, and its text may be shown.
var (
	ErrMalformed  = errors.New("the token is not one of this service: send it exactly as it was issued")
	ErrForged     = errors.New("the token was not issued by this service, or it was changed")
	ErrExpired    = errors.New("the token has expired: get a new one")
	ErrUnknownKey = errors.New("the token was made with a key that is no longer in use: get a new one")
	ErrRevoked    = errors.New("the token was revoked: ask for a new one")
)

// Refused says whether err is about the credential itself: a 401. Any other
// error of this package means that it could not be checked: a 503.
func Refused(err error) bool {
	for _, reason := range []error{ErrMalformed, ErrForged, ErrExpired, ErrUnknownKey, ErrRevoked} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// The text of a token is a prefix and unpadded base64url of its bytes:
//
//	version u8 = 1, kind u8, scope u8, key id u32, shard u32, epoch u32, expiry i64 (seconds since 1970)
//	trial; then participant, device, or relay, number of sites u8, sites
//	HMAC-SHA-256 of all that under the trial's key, 32 bytes
//
// Integers are big-endian, strings are u8 length and ASCII.
const (
	prefixParticipant = "tgp1_"
	prefixRelay       = "tgl1_"
	prefixOperator    = "tgo1_"
	prefixStaff       = "tgs1_"
	prefixBytes       = 5

	tokenVersion = 1
	tokenHead    = 1 + 1 + 1 + 4 + 4 + 4 + 8
	macBytes     = 32

	// MaxSites bounds the sites that a relay's token names.
	MaxSites = 32

	maxTokenBytes = tokenHead + 2*(1+epro.MaxIDLength) + 1 + MaxSites*(1+epro.MaxIDLength) + macBytes
)

// MaxTokenText bounds the text of any token, in bytes.
const MaxTokenText = prefixBytes + (maxTokenBytes*4+2)/3

// KindOf says what a token claims to be, by its prefix alone; 0 if nothing.
func KindOf(token string) Kind {
	if len(token) <= prefixBytes {
		return 0
	}
	switch token[:prefixBytes] {
	case prefixParticipant:
		return KindParticipant
	case prefixRelay:
		return KindRelay
	case prefixOperator:
		return KindOperator
	case prefixStaff:
		return KindStaff
	}
	return 0
}

// Mint makes the token of a participant or a relay under the newest token key.
func (k *Keys) Mint(c Claims) (string, error) {
	c.Sites = slices.Compact(slices.Sorted(slices.Values(c.Sites)))
	if err := c.validate(); err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	key := (*k.token.Load()).current()
	b := make([]byte, 0, 256)
	b = append(b, tokenVersion, byte(c.Kind), byte(c.Scope))
	b = binary.BigEndian.AppendUint32(b, key.id)
	b = binary.BigEndian.AppendUint32(b, c.Shard)
	b = binary.BigEndian.AppendUint32(b, c.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Expires.Unix()))
	b = appendString(b, c.Trial)
	prefix := prefixParticipant
	if c.Kind == KindRelay {
		prefix = prefixRelay
		b = appendString(b, c.Relay)
		b = append(b, byte(len(c.Sites)))
		for _, site := range c.Sites {
			b = appendString(b, site)
		}
	} else {
		b = appendString(b, c.Participant)
		b = appendString(b, c.Device)
	}
	mac, known := key.forTrial(c.Trial)
	if !known {
		key.byTrial.put(c.Trial, mac)
	}
	b = mac.append(b, b)
	return prefix + base64.RawURLEncoding.EncodeToString(b), nil
}

func appendString(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// Verify checks the token of a participant or a relay: form, key, MAC, expiry.
// It touches no disk and takes no lock. The claims are valid only if the error
// is nil. Errors are [ErrMalformed], [ErrUnknownKey], [ErrForged] and
// [ErrExpired], which is said only of a token that this service issued.
func (k *Keys) Verify(token string, now time.Time) (Claims, error) {
	kind := KindOf(token)
	if kind != KindParticipant && kind != KindRelay {
		return Claims{}, ErrMalformed
	}
	b, ok := decodeToken(token)
	if !ok || len(b) < tokenHead+macBytes {
		return Claims{}, ErrMalformed
	}
	message, mac := b[:len(b)-macBytes], b[len(b)-macBytes:]
	c, ok := parseClaims(message)
	if !ok || c.Kind != kind {
		return Claims{}, ErrMalformed
	}
	key := (*k.token.Load()).find(c.KeyID)
	if key == nil {
		return Claims{}, ErrUnknownKey
	}
	trialKey, known := key.forTrial(c.Trial)
	if !trialKey.verify(message, mac) {
		return Claims{}, ErrForged
	}
	if !known { // only now: made-up trials must not push out real ones
		key.byTrial.put(c.Trial, trialKey)
	}
	if now.Unix() >= c.Expires.Unix() {
		return Claims{}, ErrExpired
	}
	return c, nil
}

// decodeToken undoes the text form, of which there is exactly one.
func decodeToken(token string) ([]byte, bool) {
	// The decoder skips line ends, which would give a token a second text.
	if len(token) > MaxTokenText || strings.ContainsAny(token, "\r\n") {
		return nil, false
	}
	b, err := strictBase64.DecodeString(token[prefixBytes:])
	return b, err == nil
}

// parseClaims reads what the MAC covers. Nothing of it is to be believed yet.
func parseClaims(message []byte) (Claims, bool) {
	s := string(message) // the one copy of which every string is a part
	if s[0] != tokenVersion {
		return Claims{}, false
	}
	c := Claims{
		Kind: Kind(s[1]), Scope: Scope(s[2]),
		KeyID:   binary.BigEndian.Uint32(message[3:]),
		Shard:   binary.BigEndian.Uint32(message[7:]),
		Epoch:   binary.BigEndian.Uint32(message[11:]),
		Expires: time.Unix(int64(binary.BigEndian.Uint64(message[15:])), 0).UTC(),
	}
	rest, ok := s[tokenHead:], true
	next := func() (part string) {
		if !ok || rest == "" || int(rest[0]) > len(rest)-1 {
			ok = false
			return ""
		}
		n := int(rest[0]) + 1
		part, rest = rest[1:n], rest[n:]
		return part
	}
	c.Trial = next()
	switch c.Kind {
	case KindParticipant:
		c.Participant, c.Device = next(), next()
	case KindRelay:
		c.Relay = next()
		if !ok || rest == "" || rest[0] > MaxSites {
			return Claims{}, false
		}
		n := int(rest[0])
		rest = rest[1:]
		if n > 0 {
			c.Sites = make([]string, n)
		}
		for i := range c.Sites {
			c.Sites[i] = next()
			if i > 0 && c.Sites[i] <= c.Sites[i-1] {
				return Claims{}, false
			}
		}
	default:
		return Claims{}, false
	}
	if !ok || rest != "" || c.validate() != nil {
		return Claims{}, false
	}
	return c, true
}

// latestExpiry is the last second of the year 9999: a token for ever is an
// oversight.
const latestExpiry = 253402300799

var (
	errKind    = errors.New("it must be a participant's or a relay's")
	errScope   = errors.New("a participant's scope is submit, read or both; a relay's is relay")
	errExpires = errors.New("the expiry must lie between 1970 and 9999")
	errSites   = fmt.Errorf("at most %d sites can be named, %d characters with commas between; name none for every site of the trial", MaxSites, epro.MaxIDLength)
)

func (c *Claims) validate() error {
	if at := c.Expires.Unix(); at <= 0 || at > latestExpiry {
		return errExpires
	}
	if err := epro.ValidID(c.Trial); err != nil {
		return fmt.Errorf("trial %w", err)
	}
	switch c.Kind {
	case KindParticipant:
		if c.Scope == 0 || c.Scope&^(ScopeSubmit|ScopeRead) != 0 {
			return errScope
		}
		if err := epro.ValidID(c.Participant); err != nil {
			return fmt.Errorf("participant %w", err)
		}
		if err := epro.ValidID(c.Device); err != nil {
			return fmt.Errorf("device %w", err)
		}
	case KindRelay:
		if c.Scope != ScopeRelay {
			return errScope
		}
		if err := epro.ValidID(c.Relay); err != nil {
			return fmt.Errorf("relay's name %w", err)
		}
		// The sites stand in the actor of each report, where the projector holds
		// the relay to them: see epro.Actor.
		length := max(0, len(c.Sites)-1) // the commas
		for _, site := range c.Sites {
			length += len(site)
			if err := epro.ValidID(site); err != nil {
				return fmt.Errorf("site %w", err)
			}
			if strings.Contains(site, ",") {
				return errors.New("site must not hold a comma")
			}
		}
		if len(c.Sites) > MaxSites || length > epro.MaxIDLength {
			return errSites
		}
	default:
		return errKind
	}
	return nil
}
