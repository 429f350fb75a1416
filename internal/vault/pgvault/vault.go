package pgvault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/internal/vault"
)

const (
	columns = "id, staff_id, secret_hash, created_at, expires_at, revoked_at"
	table   = "tidegate_vault.staff_credential"
)

// CreateCredential keeps a new credential. The row is written even when it is
// there already: a commit that writes nothing would not wait for a standby that
// the first try has not reached yet.
func (v *Vault) CreateCredential(ctx context.Context, c vault.Credential) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("create credential: %w", err)
	}
	if !c.Revoked.IsZero() {
		return errors.New("create credential: it must not be revoked already")
	}
	c = stored(c)
	return wrap("create credential", v.write(ctx, func(tx pgx.Tx) error {
		kept, err := scan(tx.QueryRow(ctx, "INSERT INTO "+table+" ("+columns+") VALUES ($1, $2, $3, $4, $5, NULL)"+
			" ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING "+columns, c.ID, c.StaffID, c.SecretHash[:], c.Created, c.Expires))
		kept.Revoked = time.Time{} // revoked meanwhile is still the same credential
		if err == nil && kept != c {
			err = vault.ErrExists
		}
		return err
	}))
}

// Credential returns one credential.
func (v *Vault) Credential(ctx context.Context, id string) (vault.Credential, error) {
	c, err := scan(v.pool.QueryRow(ctx, "SELECT "+columns+" FROM "+table+" WHERE id = $1", id))
	if errors.Is(err, pgx.ErrNoRows) {
		err = vault.ErrNotFound
	}
	return c, wrap("read credential", err)
}

// Credentials lists credentials in the order of their ids.
func (v *Vault) Credentials(ctx context.Context, q vault.CredentialQuery) ([]vault.Credential, error) {
	if q.Limit <= 0 || q.Limit > vault.MaxList {
		q.Limit = vault.MaxList
	}
	query, args := "SELECT "+columns+" FROM "+table+" WHERE id > $1 ORDER BY id LIMIT $2", []any{q.After, q.Limit}
	if q.StaffID != "" {
		query = "SELECT " + columns + " FROM " + table + " WHERE id > $1 AND staff_id = $3 ORDER BY id LIMIT $2"
		args = append(args, q.StaffID)
	}
	page, err := list(ctx, v.pool, query, args...)
	return page, wrap("list credentials", err)
}

// RevokeCredential notes when a credential was revoked; the first time counts.
func (v *Vault) RevokeCredential(ctx context.Context, id string, at time.Time) error {
	return wrap("revoke credential", v.write(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE "+table+" SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1", id, instant(at))
		if err == nil && tag.RowsAffected() == 0 {
			err = vault.ErrNotFound
		}
		return err
	}))
}

// RevokeStaff revokes every credential of a staff member. All of them are
// written, for the reason that [Vault.CreateCredential] names.
func (v *Vault) RevokeStaff(ctx context.Context, staffID string, at time.Time) (n int, err error) {
	err = v.write(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `WITH fresh AS (SELECT id FROM `+table+` WHERE staff_id = $1 AND revoked_at IS NULL FOR UPDATE),
			revoked AS (UPDATE `+table+` SET revoked_at = coalesce(revoked_at, $2) WHERE staff_id = $1)
			SELECT count(*) FROM fresh`, staffID, instant(at)).Scan(&n)
	})
	if err != nil {
		n = 0
	}
	return n, wrap("revoke a staff member's credentials", err)
}

// Export returns every credential.
func (v *Vault) Export(ctx context.Context) ([]vault.Credential, error) {
	all, err := list(ctx, v.pool, "SELECT "+columns+" FROM "+table+" ORDER BY id")
	return all, wrap("export", err)
}

// Import keeps all of the credentials in a vault that holds nothing.
func (v *Vault) Import(ctx context.Context, all []vault.Credential) error {
	all, err := vault.Importable(all)
	if err != nil {
		return wrap("import", err)
	}
	return wrap("import", v.write(ctx, func(tx pgx.Tx) error {
		// Readers go on; whoever else writes waits, so nothing comes in between.
		if _, err := tx.Exec(ctx, "LOCK TABLE "+table+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
		kept, err := list(ctx, tx, "SELECT "+columns+" FROM "+table+" ORDER BY id")
		switch {
		case err != nil:
			return err
		case slices.Equal(kept, all):
			return nil
		case len(kept) > 0:
			return vault.ErrNotEmpty
		}
		rows := pgx.CopyFromSlice(len(all), func(i int) ([]any, error) {
			c := &all[i]
			var revoked *time.Time
			if !c.Revoked.IsZero() {
				revoked = &c.Revoked
			}
			return []any{c.ID, c.StaffID, c.SecretHash[:], c.Created, c.Expires, revoked}, nil
		})
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"tidegate_vault", "staff_credential"},
			[]string{"id", "staff_id", "secret_hash", "created_at", "expires_at", "revoked_at"}, rows)
		return err
	}))
}

// CopyTo writes a consistent copy to a new file, in the form that
// [vault.ReadCopy] reads.
func (v *Vault) CopyTo(ctx context.Context, path string) error {
	all, err := v.Export(ctx)
	if err != nil {
		return wrap("copy to "+path, err)
	}
	return wrap("copy to "+path, vault.WriteCopy(path, all))
}

// errUnconfirmed says that the server was told, or decided, not to wait any
// longer for its standby.
var errUnconfirmed = errors.New("the change is on the primary, but it is not known whether the standby has it: repeat the call")

// syncWaitCancelled is the code of the warning with which a commit ends that did
// not wait for the standby. The server's other warnings of this class come with
// statements that the vault does not use.
const syncWaitCancelled = "01000"

func (v *Vault) notice(c *pgconn.PgConn, n *pgconn.Notice) {
	if flag, ok := v.writing.Load(c); ok && n.Code == syncWaitCancelled {
		flag.(*atomic.Bool).Store(true)
	}
}

// write runs f in one transaction whose commit is on the disk when it returns,
// and on the synchronous standby if the server has one.
func (v *Vault) write(ctx context.Context, f func(pgx.Tx) error) error {
	conn, err := v.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // deferred first: it runs when nobody looks for the connection any more
	var unconfirmed atomic.Bool
	v.writing.Store(conn.Conn().PgConn(), &unconfirmed)
	defer v.writing.Delete(conn.Conn().PgConn())
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// Stronger settings than the default stay.
		if _, err := tx.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')`); err != nil {
			return err
		}
		return f(tx)
	})
	if err == nil && unconfirmed.Load() {
		err = errUnconfirmed
	}
	return err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func list(ctx context.Context, q querier, sql string, args ...any) ([]vault.Credential, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (vault.Credential, error) { return scan(row) })
}

func scan(row pgx.Row) (c vault.Credential, err error) {
	var hash []byte
	var revoked *time.Time
	if err := row.Scan(&c.ID, &c.StaffID, &hash, &c.Created, &c.Expires, &revoked); err != nil {
		return vault.Credential{}, err
	}
	copy(c.SecretHash[:], hash) // the table keeps none of another length
	c.Created, c.Expires = instant(c.Created), instant(c.Expires)
	if revoked != nil {
		c.Revoked = instant(*revoked)
	}
	return c, nil
}

// stored is a credential as it would come back.
func stored(c vault.Credential) vault.Credential {
	c.Created, c.Expires = instant(c.Created), instant(c.Expires)
	return c
}

// instant cuts a time to what is kept of it; the server would round.
func instant(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("vault: %s: %w", what, err)
}
