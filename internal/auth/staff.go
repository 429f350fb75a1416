package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/vault"
)

// A staff member's token is "tgs1_", the public id in lower-case hexadecimal,
// "_", and the secret in unpadded base64url. The vault keeps SHA-256 of the
// secret: 32 random bytes cannot be guessed, so a slow hash would add nothing.
const (
	staffIDBytes   = 8
	staffIDText    = 2 * staffIDBytes
	staffTokenText = prefixBytes + staffIDText + 1 + (secretBytes*4+2)/3
)

// MaxStaffLife bounds the life of a staff credential.
const MaxStaffLife = 366 * 24 * time.Hour

// NewStaffToken makes a credential of a staff member. The token is shown once
// and is nowhere kept; the credential goes into the vault and, without the
// hash, into the journal. The life is whole seconds, at most [MaxStaffLife].
func NewStaffToken(staffID string, now time.Time, life time.Duration) (token string, c vault.Credential, err error) {
	if life < time.Second || life > MaxStaffLife {
		return "", c, fmt.Errorf("make a staff token: its life must be between one second and %d days", MaxStaffLife/(24*time.Hour))
	}
	now = now.UTC().Truncate(time.Second)
	secret := newSecret()
	c = vault.Credential{
		ID: newStaffTokenID(), StaffID: staffID, SecretHash: sha256.Sum256(secret),
		Created: now, Expires: now.Add(life.Truncate(time.Second)),
	}
	if err := c.Validate(); err != nil {
		return "", vault.Credential{}, fmt.Errorf("make a staff token: %w", err)
	}
	return prefixStaff + c.ID + "_" + base64.RawURLEncoding.EncodeToString(secret), c, nil
}

func newStaffTokenID() string {
	var b [staffIDBytes]byte
	_, _ = rand.Read(b[:]) // never fails: the process ends instead
	return hex.EncodeToString(b[:])
}

// parseStaffToken takes a token apart. Any other spelling of it is refused.
func parseStaffToken(token string) (id string, hash [sha256.Size]byte, err error) {
	if len(token) != staffTokenText || KindOf(token) != KindStaff || token[prefixBytes+staffIDText] != '_' {
		return "", hash, ErrMalformed
	}
	id = token[prefixBytes : prefixBytes+staffIDText]
	if b, err := hex.DecodeString(id); err != nil || hex.EncodeToString(b) != id {
		return "", hash, ErrMalformed
	}
	// The length is exact, so a skipped line end shows as a short secret.
	secret, err := strictBase64.DecodeString(token[prefixBytes+staffIDText+1:])
	if err != nil || len(secret) != secretBytes {
		return "", hash, ErrMalformed
	}
	return id, sha256.Sum256(secret), nil
}

// Credentials is the part of the vault that [VerifyStaff] asks.
type Credentials interface {
	// Credential returns the credential with this id, or [vault.ErrNotFound].
	Credential(ctx context.Context, id string) (vault.Credential, error)
}

// VerifyStaff checks a staff member's token and returns the staff id, and
// nothing more: what that person may do is asked elsewhere, each time. An
// error for which [Refused] is false means that the vault could not answer;
// that is never a 401.
func VerifyStaff(ctx context.Context, creds Credentials, token string, now time.Time) (staffID string, err error) {
	id, hash, err := parseStaffToken(token)
	if err != nil {
		return "", err
	}
	c, err := creds.Credential(ctx, id)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return "", ErrForged // the same as a wrong secret: which ids exist is not told
	case err != nil:
		return "", fmt.Errorf("check a staff token: %w", err)
	case subtle.ConstantTimeCompare(hash[:], c.SecretHash[:]) != 1:
		return "", ErrForged
	case !c.Revoked.IsZero():
		return "", ErrRevoked
	case !now.Before(c.Expires):
		return "", ErrExpired
	}
	return c.StaffID, nil
}
