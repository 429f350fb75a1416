package pgvault_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/vault"
	"github.com/tidegate/tidegate/internal/vault/pgvault"
	"github.com/tidegate/tidegate/internal/vault/vaulttest"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

// databases stands in for the suite's paths: each is a database of its own.
type databases struct {
	pg   *services.PG
	t    *testing.T
	mu   sync.Mutex
	urls map[string]string
}

// open opens the vault that belongs to a path, as the suite's Opener asks.
func (d *databases) open(ctx context.Context, path string) (vault.Vault, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	url, made := d.urls[path]
	if !made {
		url = d.pg.NewDatabase(d.t)
		if _, _, err := pgvault.Migrate(ctx, postgres.Options{URL: url}); err != nil {
			return nil, err
		}
		d.urls[path] = url
	}
	v, err := pgvault.Open(ctx, pgvault.Options{Postgres: postgres.Options{URL: url}})
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); made || err != nil {
		return v, nil
	}
	all, err := vault.ReadCopy(path)
	if err == nil {
		err = v.Import(ctx, all)
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func TestConformance(t *testing.T) {
	d := &databases{pg: services.SharedPostgres(t), t: t, urls: map[string]string{}}
	vaulttest.Run(t, d.open)
}

func credential(id string) vault.Credential {
	return vault.Credential{
		ID: id, StaffID: "staff-1", SecretHash: sha256.Sum256([]byte(id)),
		Created: time.Unix(1_700_000_000, 0).UTC(), Expires: time.Unix(1_800_000_000, 0).UTC(),
	}
}

// migrated is the URL of a database with a vault.
func migrated(t *testing.T) string {
	t.Helper()
	url := services.SharedPostgres(t).NewDatabase(t)
	from, to, err := pgvault.Migrate(t.Context(), postgres.Options{URL: url})
	if err != nil || from != 0 || to < 1 {
		t.Fatalf("migrated from %d to %d, %v", from, to, err)
	}
	return url
}

func open(t *testing.T, url string) *pgvault.Vault {
	t.Helper()
	v, err := pgvault.Open(t.Context(), pgvault.Options{Postgres: postgres.Options{URL: url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func exec(t *testing.T, url, sql string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// TestSchemas: opening changes nothing, and says what to do about a vault that
// is not there, older or newer.
func TestSchemas(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	refused := func(part string) {
		t.Helper()
		_, err := pgvault.Open(t.Context(), pgvault.Options{Postgres: postgres.Options{URL: url}})
		var schema *postgres.SchemaError
		if !errors.As(err, &schema) || !strings.Contains(err.Error(), part) {
			t.Fatalf("got %v, want a SchemaError with %q", err, part)
		}
	}
	refused("the vault is not set up in this database: run `tidegate migrate`")
	refused("not set up") // the first look made nothing
	known, err := pgvault.Versions(t.Context(), postgres.Options{URL: url})
	if err != nil || known.Version != 0 || known.Known < 1 {
		t.Fatalf("versions %+v, %v", known, err)
	}
	for again := range 2 {
		from, to, err := pgvault.Migrate(t.Context(), postgres.Options{URL: url})
		if err != nil || to != known.Known || from != int64(again)*known.Known {
			t.Fatalf("migrated from %d to %d, %v", from, to, err)
		}
	}
	_ = open(t, url)
	exec(t, url, fmt.Sprintf("INSERT INTO tidegate_vault.migrations (version_id, is_applied) VALUES (%d, true)", known.Known+1))
	refused(fmt.Sprintf("has schema %d, and this program knows %d only", known.Known+1, known.Known))
	if _, _, err := pgvault.Migrate(t.Context(), postgres.Options{URL: url}); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Fatalf("migrating a newer one: %v", err)
	}
	exec(t, url, "DELETE FROM tidegate_vault.migrations WHERE version_id > 0")
	refused("not set up")
}

// TestDurableByItself: a server that answers commits before they are on the disk
// by default does not do so for the vault, and a stronger default stays.
func TestDurableByItself(t *testing.T) {
	for setting, want := range map[string]string{"off": "on", "local": "on", "remote_write": "on", "on": "on", "remote_apply": "remote_apply"} {
		t.Run(setting, func(t *testing.T) {
			url := migrated(t)
			// The server tells what was in force at the end of the transaction that wrote.
			exec(t, url, `CREATE TABLE seen (v text);
				CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
				CREATE CONSTRAINT TRIGGER see AFTER INSERT OR UPDATE ON tidegate_vault.staff_credential DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see()`)
			v := open(t, url+"&synchronous_commit="+setting)
			if err := v.CreateCredential(t.Context(), credential("a")); err != nil {
				t.Fatal(err)
			}
			if err := v.RevokeCredential(t.Context(), "a", time.Unix(1_750_000_000, 0)); err != nil {
				t.Fatal(err)
			}
			c, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(context.WithoutCancel(t.Context()))
			var n, good int
			if err := c.QueryRow(t.Context(), "SELECT count(*), count(*) FILTER (WHERE v = $1) FROM seen", want).Scan(&n, &good); err != nil {
				t.Fatal(err)
			}
			if n != 2 || good != n {
				t.Errorf("of %d writes %d ran with synchronous_commit=%s", n, good, want)
			}
		})
	}
}

// TestCancelledWaitIsUnknown: a commit that stops waiting for a standby is no
// success, and the same call again waits again.
func TestCancelledWaitIsUnknown(t *testing.T) {
	url := migrated(t)
	v := open(t, url)
	ended := make(chan error, 3)
	// No standby has this name, so every commit waits until it is cancelled.
	exec(t, url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	exec(t, url, "SELECT pg_reload_conf()")
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		for _, sql := range []string{"ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"} {
			if _, err := c.Exec(context.Background(), sql); err != nil {
				t.Error(err)
			}
		}
	})
	waitFor := func() {
		t.Helper()
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.WithoutCancel(t.Context()))
		for range 500 {
			var n int
			if err := c.QueryRow(t.Context(), "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep'").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("no commit waits for a standby")
	}
	at := time.Unix(1_750_000_000, 0)
	for name, call := range map[string]func() error{
		"create":       func() error { return v.CreateCredential(context.Background(), credential("a")) },
		"create again": func() error { return v.CreateCredential(context.Background(), credential("a")) },
	} {
		go func() { ended <- call() }()
		waitFor()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "standby") {
			t.Errorf("%s: got %v, want an unknown outcome", name, err)
		}
	}
	for name, call := range map[string]func() error{
		"revoke":       func() error { return v.RevokeCredential(context.Background(), "a", at) },
		"revoke again": func() error { return v.RevokeCredential(context.Background(), "a", at) },
		"revoke staff": func() error { _, err := v.RevokeStaff(context.Background(), "staff-1", at); return err },
	} {
		go func() { ended <- call() }()
		waitFor()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "standby") {
			t.Errorf("%s: got %v, want an unknown outcome", name, err)
		}
	}
}

// TestOrderOfBytes: a database whose collation orders otherwise lists by bytes
// all the same.
func TestOrderOfBytes(t *testing.T) {
	v := open(t, migrated(t))
	for _, id := range []string{"b", "B", "a-1", "a1", "A", "_"} {
		if err := v.CreateCredential(t.Context(), credential(id)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := v.Credentials(t.Context(), vault.CredentialQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	if got := strings.Join(ids, " "); got != "A B _ a-1 a1 b" {
		t.Errorf("listed as %q", got)
	}
}

// TestErrorsHoldNoSecret: whatever goes wrong, neither the password of the URL
// nor a hash is in the text.
func TestErrorsHoldNoSecret(t *testing.T) {
	for _, url := range []string{"postgres://app:hunter2@127.0.0.1:1/none", "postgres://app:hunter2@[", "hunter2"} {
		_, err := pgvault.Open(t.Context(), pgvault.Options{Postgres: postgres.Options{URL: url}})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}
