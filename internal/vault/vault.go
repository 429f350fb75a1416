// Package vault is the contract for everything that is mutable, secret or
// erasable: in this release the credentials of staff. It is never on the way
// of a report. What is kept here has its own migrations and its own backup;
// whatever an auditor would ask about is told to the journal too, without the
// secret.
package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
)

// Vault is what every adapter keeps. All methods are safe for concurrent use.
// A nil error of a changing method means that the change is durable; any other
// error than the named ones leaves the outcome unknown, and the call may be
// repeated. Instants are kept in UTC, to the millisecond.
type Vault interface {
	// CreateCredential keeps a new credential. The same one again is nil, so
	// that a call of unknown outcome can be repeated; another one under a used
	// id is ErrExists. Revoked must be zero.
	CreateCredential(ctx context.Context, c Credential) error

	// Credential returns the credential with this id, revoked and expired ones
	// too, or ErrNotFound.
	Credential(ctx context.Context, id string) (Credential, error)

	// Credentials lists credentials in the order of their ids.
	Credentials(ctx context.Context, q CredentialQuery) ([]Credential, error)

	// RevokeCredential notes when a credential was revoked. The first time
	// counts: again is nil and changes nothing. ErrNotFound if there is none.
	RevokeCredential(ctx context.Context, id string, at time.Time) error

	// RevokeStaff revokes every credential of a staff member that is not
	// revoked yet, all or none, and says how many it were.
	RevokeStaff(ctx context.Context, staffID string, at time.Time) (int, error)

	// Schema says which migrations the data has and which this program knows.
	Schema(ctx context.Context) (Schema, error)

	// Export returns every credential in the order of their ids, as of one
	// moment. There are at most some thousands.
	Export(ctx context.Context) ([]Credential, error)

	// Import keeps what another vault exported, revoked credentials too, all or
	// none. It is for a vault that holds nothing: one that holds exactly these
	// is nil, so that a call of unknown outcome can be repeated, and one that
	// holds anything else is ErrNotEmpty.
	Import(ctx context.Context, all []Credential) error

	// CopyTo writes a consistent copy, as of one moment, to a new file with
	// mode 0600; others go on reading and writing. An existing file is never
	// replaced (ErrExists). The copy is durable, complete, and appears under
	// its name only then. Its form is the adapter's: the vault's own file, or
	// where there is none what [ReadCopy] reads.
	CopyTo(ctx context.Context, path string) error

	// Close ends the use of the vault. Calls in progress finish or fail.
	Close() error
}

// Credential is what is kept of a staff member's token. It names a staff id
// and nothing else: roles come from facts.
type Credential struct {
	ID         string            // public part of the token
	StaffID    string            // whom it stands for
	SecretHash [sha256.Size]byte // SHA-256 of the secret part
	Created    time.Time
	Expires    time.Time // refused from this instant on
	Revoked    time.Time // zero: not revoked
}

// Validate says why a credential cannot be kept, or nil.
func (c *Credential) Validate() error {
	if err := epro.ValidID(c.ID); err != nil {
		return fmt.Errorf("credential id %w", err)
	}
	if err := epro.ValidID(c.StaffID); err != nil {
		return fmt.Errorf("staff id %w", err)
	}
	if c.SecretHash == [sha256.Size]byte{} {
		return errors.New("credential has no secret")
	}
	if c.Created.IsZero() || !c.Expires.After(c.Created) {
		return errors.New("credential must expire after it was created")
	}
	return nil
}

// CredentialQuery says which credentials to list. The zero value lists the
// first [MaxList] of all.
type CredentialQuery struct {
	StaffID string // only those of this staff member; "" for all
	After   string // only ids beyond this one: the last of the page before
	Limit   int    // at most this many; 0 or more than MaxList means MaxList
}

// MaxList bounds one page of a list.
const MaxList = 1000

// Schema is the state of the migrations.
type Schema struct {
	Version int64 // newest migration in the data
	Known   int64 // newest migration in this program
}

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("not in the vault")
	ErrExists   = errors.New("exists already")
	ErrNotEmpty = errors.New("the vault holds other credentials already")
)

// OpenError says why a vault cannot be used and what to do about it, in one
// sentence that holds nothing of its content.
type OpenError struct {
	Path    string
	Problem string // what is wrong, after the path
	Remedy  string // what to do, in the imperative
	Err     error  // the cause, nil if there is none beyond the problem
}

// Error is the sentence.
func (e *OpenError) Error() string { return "vault " + e.Path + " " + e.Problem + ": " + e.Remedy }

// Unwrap returns the cause.
func (e *OpenError) Unwrap() error { return e.Err }
