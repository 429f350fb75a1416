package sqlitevault_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/vault"
	"github.com/tidegate/tidegate/internal/vault/sqlitevault"
	"github.com/tidegate/tidegate/internal/vault/vaulttest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("SQLITEVAULT_TEST_WRITE"); path != "" {
		writeAndDie(path)
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	vaulttest.Run(t, func(ctx context.Context, path string) (vault.Vault, error) {
		return sqlitevault.Open(ctx, path, sqlitevault.Options{Create: true})
	})
}

func credential(id string) vault.Credential {
	return vault.Credential{
		ID: id, StaffID: "staff-1", SecretHash: sha256.Sum256([]byte(id)),
		Created: time.Unix(1_700_000_000, 0).UTC(), Expires: time.Unix(1_800_000_000, 0).UTC(),
	}
}

// create makes a vault with one credential and closes it.
func create(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vault.db")
	v := open(t, path, true)
	if err := v.CreateCredential(t.Context(), credential("a")); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string, create bool) *sqlitevault.Vault {
	t.Helper()
	v, err := sqlitevault.Open(t.Context(), path, sqlitevault.Options{Create: create})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// refused opens what must not open: one sentence with the path, the problem
// and what to do.
func refused(t *testing.T, path string, parts ...string) {
	t.Helper()
	v, err := sqlitevault.Open(t.Context(), path, sqlitevault.Options{})
	if err == nil {
		_ = v.Close()
		t.Fatalf("%s was opened", path)
	}
	var refusal *vault.OpenError
	if !errors.As(err, &refusal) {
		t.Fatalf("not a refusal: %v", err)
	}
	for _, part := range append(parts, path) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a sentence: %q", err)
	}
}

func TestModesOfFiles(t *testing.T) {
	// A name that a DSN would have to escape.
	path := filepath.Join(t.TempDir(), "50% of a vault?#.db")
	v := open(t, path, true)
	if err := v.CreateCredential(t.Context(), credential("a")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", name, info.Mode())
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "vault.db")
		refused(t, path, "is missing", "restore")
		if _, err := os.Stat(path); err == nil {
			t.Error("it was made anyway")
		}
	})
	t.Run("open to others", func(t *testing.T) {
		path := create(t)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "0640", "chmod 600")
	})
	t.Run("not a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "vault.db")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "regular file")
	})
	t.Run("not a database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "vault.db")
		if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "not a database", "restore")
	})
	t.Run("another database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "vault.db")
		change(t, path, "CREATE TABLE report (id TEXT)")
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "not a vault")
		if n := tables(t, path); n != 1 {
			t.Errorf("it has %d tables now", n)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		path := create(t)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 4096; i < len(content); i++ { // all but the first page
			content[i] ^= 0x55
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "is damaged", "restore")
	})
	t.Run("newer schema", func(t *testing.T) {
		path := create(t)
		change(t, path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
		refused(t, path, "schema version 99", "up to 1", "newer tidegate")
	})
	t.Run("locked by another process", func(t *testing.T) {
		if testing.Short() {
			t.Skip("waits for the busy time-out")
		}
		path := create(t)
		db := raw(t, path)
		if _, err := db.ExecContext(t.Context(), "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE"); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "in use", "stop that process")
	})
}

// A first start that was killed after any of its steps is finished by the next.
func TestOpenAfterUnfinishedCreation(t *testing.T) {
	for name, statements := range map[string]string{
		"empty file":       "",
		"marked":           "PRAGMA application_id = 1413961300",
		"version table":    "PRAGMA application_id = 1413961300; CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now'))); INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1)",
		"WAL mode, marked": "PRAGMA journal_mode=WAL; PRAGMA application_id = 1413961300",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vault.db")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if statements != "" {
				change(t, path, statements)
			}
			v := open(t, path, true)
			if err := v.CreateCredential(t.Context(), credential("a")); err != nil {
				t.Fatal(err)
			}
		})
	}
	// Where a vault must be, an empty file is a lost one.
	path := filepath.Join(t.TempDir(), "vault.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, path, "is empty", "restore")
}

func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func change(t *testing.T, path, statements string) {
	t.Helper()
	db := raw(t, path)
	if _, err := db.ExecContext(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func tables(t *testing.T, path string) (n int) {
	t.Helper()
	if err := raw(t, path).QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What a nil error promised is there after the process was killed without
// closing anything.
func TestSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "SQLITEVAULT_TEST_WRITE="+path)
	out, err := cmd.Output()
	if err == nil {
		t.Fatal("the writer was not killed")
	}
	acknowledged := strings.Fields(string(out))
	if len(acknowledged) != 20 {
		t.Fatalf("the writer acknowledged %d credentials: %v", len(acknowledged), err)
	}
	v := open(t, path, false)
	for _, id := range acknowledged {
		if got, err := v.Credential(t.Context(), id); err != nil || got != credential(id) {
			t.Errorf("credential %s: %+v, %v", id, got, err)
		}
	}
}

// writeAndDie is the other process of TestSurvivesKill.
func writeAndDie(path string) {
	v, err := sqlitevault.Open(context.Background(), path, sqlitevault.Options{Create: true})
	for i := range 20 {
		if err == nil {
			id := string(rune('a' + i))
			if err = v.CreateCredential(context.Background(), credential(id)); err == nil {
				_, err = os.Stdout.WriteString(id + "\n")
			}
		}
	}
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(0) // the test wants to see a kill
	}
	self, _ := os.FindProcess(os.Getpid())
	_ = self.Kill()
	select {}
}
