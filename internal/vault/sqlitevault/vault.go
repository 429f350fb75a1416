package sqlitevault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidegate/tidegate/internal/vault"
)

const columns = "id, staff_id, secret_hash, created_at, expires_at, revoked_at"

// CreateCredential keeps a new credential.
func (v *Vault) CreateCredential(ctx context.Context, c vault.Credential) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("create credential: %w", err)
	}
	if !c.Revoked.IsZero() {
		return errors.New("create credential: it must not be revoked already")
	}
	err := v.inTx(ctx, func(tx *sql.Tx) error {
		kept, err := scan(tx.QueryRowContext(ctx, "SELECT "+columns+" FROM staff_credential WHERE id = ?", c.ID))
		switch {
		case err == nil:
			kept.Revoked = time.Time{} // revoked meanwhile is still the same credential
			if kept != stored(c) {
				return vault.ErrExists
			}
			return nil
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO staff_credential ("+columns+") VALUES (?, ?, ?, ?, ?, NULL)",
			c.ID, c.StaffID, c.SecretHash[:], c.Created.UnixMilli(), c.Expires.UnixMilli())
		return err
	})
	return wrap("create credential", err)
}

// Credential returns one credential.
func (v *Vault) Credential(ctx context.Context, id string) (vault.Credential, error) {
	c, err := scan(v.read.QueryRowContext(ctx, "SELECT "+columns+" FROM staff_credential WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		err = vault.ErrNotFound
	}
	return c, wrap("read credential", err)
}

// Credentials lists credentials in the order of their ids.
func (v *Vault) Credentials(ctx context.Context, q vault.CredentialQuery) ([]vault.Credential, error) {
	if q.Limit <= 0 || q.Limit > vault.MaxList {
		q.Limit = vault.MaxList
	}
	query, args := "SELECT "+columns+" FROM staff_credential WHERE id > ? ORDER BY id LIMIT ?", []any{q.After, q.Limit}
	if q.StaffID != "" {
		query = "SELECT " + columns + " FROM staff_credential WHERE staff_id = ? AND id > ? ORDER BY id LIMIT ?"
		args = []any{q.StaffID, q.After, q.Limit}
	}
	page, err := list(ctx, v.read, query, args...)
	return page, wrap("list credentials", err)
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func list(ctx context.Context, q querier, query string, args ...any) ([]vault.Credential, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []vault.Credential
	for rows.Next() {
		c, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

// RevokeCredential notes when a credential was revoked; the first time counts.
func (v *Vault) RevokeCredential(ctx context.Context, id string, at time.Time) error {
	result, err := v.write.ExecContext(ctx, "UPDATE staff_credential SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", at.UnixMilli(), id)
	if err != nil {
		return wrap("revoke credential", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return wrap("revoke credential", errors.Join(err, vault.ErrNotFound))
	}
	return nil
}

// RevokeStaff revokes every credential of a staff member.
func (v *Vault) RevokeStaff(ctx context.Context, staffID string, at time.Time) (int, error) {
	result, err := v.write.ExecContext(ctx, "UPDATE staff_credential SET revoked_at = ? WHERE staff_id = ? AND revoked_at IS NULL", at.UnixMilli(), staffID)
	if err != nil {
		return 0, wrap("revoke a staff member's credentials", err)
	}
	n, err := result.RowsAffected()
	return int(n), wrap("revoke a staff member's credentials", err)
}

// Export returns every credential.
func (v *Vault) Export(ctx context.Context) ([]vault.Credential, error) {
	all, err := list(ctx, v.read, "SELECT "+columns+" FROM staff_credential ORDER BY id")
	return all, wrap("export", err)
}

// Import keeps all of the credentials in a vault that holds nothing.
func (v *Vault) Import(ctx context.Context, all []vault.Credential) error {
	all, err := vault.Importable(all)
	if err != nil {
		return wrap("import", err)
	}
	return wrap("import", v.inTx(ctx, func(tx *sql.Tx) error {
		kept, err := list(ctx, tx, "SELECT "+columns+" FROM staff_credential ORDER BY id")
		switch {
		case err != nil:
			return err
		case slices.Equal(kept, all):
			return nil
		case len(kept) > 0:
			return vault.ErrNotEmpty
		}
		for _, c := range all {
			revoked := sql.NullInt64{Int64: c.Revoked.UnixMilli(), Valid: !c.Revoked.IsZero()}
			if _, err := tx.ExecContext(ctx, "INSERT INTO staff_credential ("+columns+") VALUES (?, ?, ?, ?, ?, ?)",
				c.ID, c.StaffID, c.SecretHash[:], c.Created.UnixMilli(), c.Expires.UnixMilli(), revoked); err != nil {
				return err
			}
		}
		return nil
	}))
}

// Schema says which migrations the file has and which this program knows.
func (v *Vault) Schema(ctx context.Context) (vault.Schema, error) {
	current, known, err := v.goose.GetVersions(ctx)
	return vault.Schema{Version: current, Known: known}, wrap("read the schema version", err)
}

// CopyTo writes a consistent copy to a new file.
func (v *Vault) CopyTo(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return wrap("copy", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return wrap("copy to "+path, vault.ErrExists)
	}
	return wrap("copy to "+path, v.copyTo(ctx, path))
}

func (v *Vault) copyTo(ctx context.Context, path string) (err error) {
	part := path + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a copy that was killed
		return err
	}
	// SQLite would make the file with the process's umask; it also accepts an empty one.
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if rerr := os.Remove(part); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	// A connection of its own: readers may not write, and the writer is not to wait.
	db := sql.OpenDB(v.connector)
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", part)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// VACUUM INTO does not sync what it wrote.
	if err := errors.Join(f.Chmod(0o600), f.Sync()); err != nil {
		return err
	}
	if err := publish(part, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// publish gives a finished file its name and never replaces another one.
func publish(part, path string) error {
	err := os.Link(part, path)
	switch {
	case err == nil:
		return nil // the other name is removed by the caller
	case errors.Is(err, fs.ErrExist):
		return vault.ErrExists
	}
	// No hard links on this file system: looking first is the best there is.
	if _, err := os.Lstat(path); err == nil {
		return vault.ErrExists
	}
	return os.Rename(part, path)
}

// inTx runs f in one transaction that holds the write lock from its start.
func (v *Vault) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := v.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing, else the first error matters
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

type scanner interface{ Scan(dest ...any) error }

func scan(row scanner) (c vault.Credential, err error) {
	var hash []byte
	var created, expires int64
	var revoked sql.NullInt64
	if err := row.Scan(&c.ID, &c.StaffID, &hash, &created, &expires, &revoked); err != nil {
		return vault.Credential{}, err
	}
	if copy(c.SecretHash[:], hash) != len(hash) || len(hash) != len(c.SecretHash) {
		return vault.Credential{}, errors.New("a secret's hash has the wrong length: the vault is damaged, restore it from the backup")
	}
	c.Created, c.Expires = time.UnixMilli(created).UTC(), time.UnixMilli(expires).UTC()
	if revoked.Valid {
		c.Revoked = time.UnixMilli(revoked.Int64).UTC()
	}
	return c, nil
}

// stored is a credential as it would come back.
func stored(c vault.Credential) vault.Credential {
	c.Created, c.Expires = time.UnixMilli(c.Created.UnixMilli()).UTC(), time.UnixMilli(c.Expires.UnixMilli()).UTC()
	return c
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("vault: %s: %w", what, err)
}
