package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/app"
	"github.com/tidegate/tidegate/test/services"
)

// tidegate runs a command in this process.
func tidegate(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = app.Main("test", args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// must runs a command that has to exit with 0.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := tidegate(args...)
	if code != 0 {
		t.Fatalf("tidegate %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// refused runs a command that has to end with a code and a sentence.
func refused(t *testing.T, want int, sentence string, args ...string) {
	t.Helper()
	out, errs, code := tidegate(args...)
	if code != want || !strings.Contains(errs, sentence) {
		t.Errorf("tidegate %s: exit code %d, want %d with %q\n%s%s", strings.Join(args, " "), code, want, sentence, out, errs)
	}
}

func sqlExec(t *testing.T, url string, statements ...string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	for _, s := range statements {
		if _, err := c.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func sqlInt(t *testing.T, url, question string) (n int) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if err := c.QueryRow(t.Context(), question).Scan(&n); err != nil {
		t.Fatalf("%s: %v", question, err)
	}
	return n
}

const schemasOfOurs = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tidegate%'"

type migration struct {
	Schema, Database string
	From, To         int64
	ToDo             bool
}

func migrations(t *testing.T, out string) []migration {
	t.Helper()
	var answer struct{ Schemas []migration }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return answer.Schemas
}

func TestMigrate(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	out, _, code := tidegate("migrate", "--postgres", url, "--check")
	if code != 1 || strings.Count(out, "is to be made") != 2 {
		t.Errorf("check of an empty database: exit code %d\n%s", code, out)
	}
	if n := sqlInt(t, url, schemasOfOurs); n != 0 {
		t.Errorf("a check made %d schemas", n)
	}
	out = must(t, "migrate", "--postgres", url, "--json")
	done := migrations(t, out)
	if len(done) != 2 || done[0].Schema != "journal" || done[1].Schema != "vault" || done[0].From != 0 || done[0].To < 1 || done[1].From != 0 || done[1].To < 1 {
		t.Errorf("migrated: %s", out)
	}
	if n := sqlInt(t, url, schemasOfOurs); n != 2 {
		t.Errorf("%d schemas, want 2: the tables are the projector's", n)
	}
	if out = must(t, "migrate", "--postgres", url); strings.Count(out, "nothing to do") != 2 {
		t.Errorf("again: %s", out)
	}
	if out = must(t, "migrate", "--postgres", url, "--check"); strings.Count(out, "nothing to do") != 2 {
		t.Errorf("check again: %s", out)
	}
	sqlExec(t, url, "INSERT INTO tidegate_vault.migrations (version_id, is_applied) VALUES (99, true)")
	for _, args := range [][]string{nil, {"--check"}} {
		refused(t, 1, "use the newer version of tidegate that migrated it", append([]string{"migrate", "--postgres", url}, args...)...)
	}
}

// TestMigrateTwoDatabases: each schema in the database that is configured for it.
func TestMigrateTwoDatabases(t *testing.T) {
	pg := services.SharedPostgres(t)
	both, vault := pg.NewDatabase(t), pg.NewDatabase(t)
	file := filepath.Join(t.TempDir(), "tidegate.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "postgres:\n  url: %q\n  vaultURL: %q\n", both, vault), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "migrate", "--config", file)
	for url, want := range map[string]string{both: "tidegate_journal", vault: "tidegate_vault"} {
		if n := sqlInt(t, url, schemasOfOurs); n != 1 {
			t.Errorf("%d schemas in %s", n, url)
		}
		if n := sqlInt(t, url, "SELECT count(*) FROM pg_namespace WHERE nspname = '"+want+"'"); n != 1 {
			t.Errorf("no %s in %s", want, url)
		}
	}
	t.Setenv("TIDEGATE_POSTGRES_URL", both)
	must(t, "migrate") // the environment alone will do
}

func TestMigrateRefusals(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	as := func(user string) string { return strings.Replace(url, "//"+cfg.User+"@", "//"+user+"@", 1) }
	refused(t, 2, "no database is named", "migrate")
	refused(t, 1, "there is no such database: create it", "migrate", "--postgres", pg.URL("nowhere"))
	refused(t, 1, "does not let this user in", "migrate", "--postgres", as("nobody"))
	refused(t, 1, "the server cannot be reached", "migrate", "--postgres", "postgres://app@127.0.0.1:1/x?sslmode=disable")
	sqlExec(t, url, "CREATE ROLE weak LOGIN")
	refused(t, 1, "this user lacks a right: GRANT CREATE ON DATABASE", "migrate", "--postgres", as("weak"))
	refused(t, 1, "postgres", "migrate", "--postgres", "mysql://x")
}
