package epro

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
)

// Digest is a SHA-256 value.
type Digest [32]byte

// IsZero says whether d was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// String is the lower-case hexadecimal form.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// UUID identifies a fact; a report's is made on the phone (RFC 9562).
type UUID [16]byte

// ErrUUID says that a text is not a UUID in the 8-4-4-4-12 form.
var ErrUUID = errors.New("must be a UUID such as 7b0c1f6e-3a5d-4c1e-9d5b-0a4f6f2f9a11")

// uuidDigits are the places of a UUID's bytes in its text.
var uuidDigits = [16]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34}

// ParseUUID reads the 8-4-4-4-12 hexadecimal form, in either case. The value
// is the same for both, so a phone that changes case still names one report.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, ErrUUID
	}
	for j, i := range uuidDigits {
		hi, ok1 := hexDigit(s[i])
		lo, ok2 := hexDigit(s[i+1])
		if !ok1 || !ok2 {
			return UUID{}, ErrUUID
		}
		u[j] = hi<<4 | lo
	}
	return u, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// NewUUID returns a random UUID (version 4).
func NewUUID() UUID {
	var u UUID
	// crypto/rand.Read never returns an error: the process ends instead.
	_, _ = rand.Read(u[:])
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// IsZero says whether u is the nil UUID.
func (u UUID) IsZero() bool { return u == UUID{} }

// AppendText appends the canonical lower-case form to dst.
func (u UUID) AppendText(dst []byte) ([]byte, error) {
	dst = hex.AppendEncode(dst, u[0:4])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, u[4:6])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, u[6:8])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, u[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, u[10:16]), nil
}

// String is the canonical lower-case form.
func (u UUID) String() string {
	b, _ := u.AppendText(make([]byte, 0, 36))
	return string(b)
}

// MarshalText implements [encoding.TextMarshaler].
func (u UUID) MarshalText() ([]byte, error) { return u.AppendText(make([]byte, 0, 36)) }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (u *UUID) UnmarshalText(text []byte) error {
	v, err := ParseUUID(string(text))
	if err != nil {
		return err
	}
	*u = v
	return nil
}

// MaxIDLength bounds trial, site, participant, staff and device ids, in bytes.
const MaxIDLength = 64

// ValidID says what is wrong with an id of a trial, site, participant, staff
// member or device, or nil. Ids are printable ASCII so that they look the same
// on every screen, in every export, and in the canonical envelope.
func ValidID(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	if len(s) > MaxIDLength {
		return fmt.Errorf("must be at most %d characters", MaxIDLength)
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return errors.New("must be printable ASCII: no control characters, no accents")
		}
	}
	if s[0] == ' ' || s[len(s)-1] == ' ' {
		return errors.New("must not begin or end with a space")
	}
	return nil
}
