package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) {
	if url := os.Getenv("POSTGRES_TEST_MIGRATE"); url != "" {
		migrateAndExit(url)
	}
	services.Main(m)
}

// schema has n migrations. Each of them fails when it runs a second time.
func schema(n int) postgres.Schema {
	files := fstest.MapFS{}
	for i := 1; i <= n; i++ {
		files[fmt.Sprintf("%05d_step.sql", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "-- +goose Up\nCREATE TABLE test_schema.step_%d (n integer);\nINSERT INTO test_schema.step_%[1]d VALUES (%[1]d);\n", i)}
	}
	return postgres.Schema{Name: "test_schema", What: "the thing", Files: files}
}

const steps = 5

// migrateAndExit is one of several processes: it waits for its standard input to
// end, so that all begin at once.
func migrateAndExit(url string) {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		panic(err)
	}
	from, to, err := schema(steps).Migrate(context.Background(), postgres.Options{URL: url})
	if err != nil || to != steps {
		fmt.Println(from, to, err)
		os.Exit(1)
	}
	fmt.Print(from)
	os.Exit(0)
}

func query[T any](t *testing.T, url, sql string) (v T) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if err := c.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func execute(t *testing.T, url, sql string) {
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

// once checks that every migration ran, and ran once.
func once(t *testing.T, url string, didIt int) {
	t.Helper()
	if didIt != 1 {
		t.Errorf("%d of them say that they migrated from nothing, want 1", didIt)
	}
	if n := query[int](t, url, "SELECT count(*) FROM test_schema.migrations WHERE version_id > 0"); n != steps {
		t.Errorf("%d migrations are noted, want %d", n, steps)
	}
}

// TestMigrateAtOnceInOneProcess: whoever comes second waits, and finds the work
// done.
func TestMigrateAtOnceInOneProcess(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	var wg sync.WaitGroup
	froms := make([]int64, 8)
	for i := range froms {
		wg.Go(func() {
			from, to, err := schema(steps).Migrate(t.Context(), postgres.Options{URL: url, MaxConns: 1})
			if err != nil || to != steps {
				t.Errorf("migrated to %d, %v", to, err)
			}
			froms[i] = from
		})
	}
	wg.Wait()
	didIt := 0
	for _, from := range froms {
		if from == 0 {
			didIt++
		}
	}
	once(t, url, didIt)
}

// TestMigrateAtOnceInSeveralProcesses is how roles start.
func TestMigrateAtOnceInSeveralProcesses(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	type process struct {
		cmd  *exec.Cmd
		gate io.WriteCloser
		out  strings.Builder
	}
	all := make([]process, 4)
	for i := range all {
		p := &all[i]
		p.cmd = exec.Command(program, "-test.run=^$")
		p.cmd.Env = append(os.Environ(), "POSTGRES_TEST_MIGRATE="+url)
		p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
		if p.gate, err = p.cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range all {
		all[i].gate.Close()
	}
	didIt := 0
	for i := range all {
		if err := all[i].cmd.Wait(); err != nil {
			t.Errorf("process %d: %v: %s", i, err, all[i].out.String())
		}
		if all[i].out.String() == "0" {
			didIt++
		}
	}
	once(t, url, didIt)
}

// TestSchemaSentences: each state of a schema has a sentence that says what to
// do, and none of them is changed by looking.
func TestSchemaSentences(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	pool, err := postgres.Open(t.Context(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	check := func(known int, want postgres.Versions, sentence string) {
		t.Helper()
		v, err := schema(known).Versions(t.Context(), pool)
		if err != nil || v != want {
			t.Errorf("versions %+v, %v; want %+v", v, err, want)
		}
		err = schema(known).Check(t.Context(), pool)
		if sentence == "" {
			if err != nil {
				t.Errorf("got %v, want no error", err)
			}
			return
		}
		var other *postgres.SchemaError
		if !errors.As(err, &other) || other.Versions != want || err.Error() != sentence {
			t.Errorf("got  %v\nwant %s", err, sentence)
		}
	}
	migrate := func(known, from, to int) {
		t.Helper()
		f, u, err := schema(known).Migrate(t.Context(), postgres.Options{URL: url})
		if err != nil || f != int64(from) || u != int64(to) {
			t.Fatalf("migrated from %d to %d, %v; want %d to %d", f, u, err, from, to)
		}
	}
	check(2, postgres.Versions{Version: 0, Known: 2}, "the thing is not set up in this database: run `tidegate migrate`")
	execute(t, url, "CREATE SCHEMA test_schema") // made by an administrator, still without tables
	check(2, postgres.Versions{Version: 0, Known: 2}, "the thing is not set up in this database: run `tidegate migrate`")
	migrate(2, 0, 2)
	check(2, postgres.Versions{Version: 2, Known: 2}, "")
	check(3, postgres.Versions{Version: 2, Known: 3}, "the thing in this database has schema 2, and this program needs 3: run `tidegate migrate` with this version first")
	migrate(3, 2, 3)
	check(2, postgres.Versions{Version: 3, Known: 2}, "the thing in this database has schema 3, and this program knows 2 only: use the newer version of tidegate that migrated it")
	from, to, err := schema(2).Migrate(t.Context(), postgres.Options{URL: url})
	var newer *postgres.SchemaError
	if from != 3 || to != 3 || !errors.As(err, &newer) {
		t.Errorf("migrating a newer schema: %d to %d, %v", from, to, err)
	}
	check(3, postgres.Versions{Version: 3, Known: 3}, "")
	if v := query[int](t, url, "SELECT n FROM test_schema.step_3"); v != 3 {
		t.Errorf("step 3 left %d", v)
	}
}

// TestFailedMigration: it leaves the schema at the last whole step, says which
// step failed, and lets go of the lock.
func TestFailedMigration(t *testing.T) {
	url := services.SharedPostgres(t).NewDatabase(t)
	broken := schema(3)
	broken.Files.(fstest.MapFS)["00002_step.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE test_schema.half (n integer);\nSELECT 1/0;\n")}
	if _, _, err := broken.Migrate(t.Context(), postgres.Options{URL: url}); err == nil || !strings.Contains(err.Error(), "migrate the thing") || !strings.Contains(err.Error(), "version:2") {
		t.Errorf("got %v", err)
	}
	if n := query[int](t, url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'test_schema' AND tablename IN ('half', 'step_3')"); n != 0 {
		t.Error("half a migration was left")
	}
	if from, to, err := schema(3).Migrate(t.Context(), postgres.Options{URL: url}); err != nil || from != 1 || to != 3 {
		t.Errorf("after the repair: from %d to %d, %v", from, to, err)
	}
}

// TestMigrateWithLittleRight: whoever may not make schemas can migrate one that
// is his, and is told which right is missing where it is not.
func TestMigrateWithLittleRight(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := pg.NewDatabase(t)
	execute(t, url, "CREATE ROLE small LOGIN")
	own := strings.Replace(url, "//"+userOf(t, url)+"@", "//small@", 1)
	_, _, err := schema(1).Migrate(t.Context(), postgres.Options{URL: own})
	if !postgres.Final(err) || postgres.Code(err) != postgres.CodeInsufficientPriv {
		t.Errorf("without a right: %v", err)
	}
	execute(t, url, "CREATE SCHEMA test_schema AUTHORIZATION small")
	if from, to, err := schema(1).Migrate(t.Context(), postgres.Options{URL: own}); err != nil || from != 0 || to != 1 {
		t.Errorf("with a schema of its own: from %d to %d, %v", from, to, err)
	}
}

func userOf(t *testing.T, url string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.User
}
