package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/vault/pgvault"
)

type migrateCmd struct {
	Config   string `help:"Configuration file; its postgres section names the databases." type:"path"`
	Postgres string `help:"One database for journal and vault, instead of what the configuration names." placeholder:"URL"`
	Check    bool   `help:"Change nothing; exit code 1 if there is something to do."`
	JSON     bool   `help:"Print JSON."`
}

// Help shows an example.
func (migrateCmd) Help() string {
	return help(`Makes the schemas tidegate_journal and tidegate_vault, or brings older ones up to what this version needs. The user of
the URL must own them, or may make schemas in the database. Roles never do this themselves: run it before a new version
of them starts; the old ones may go on meanwhile. Safe to run at once from several places. It only goes forward: back the databases up first.
The tables have no migrations, the projector makes them.`, "tidegate migrate --config /etc/tidegate.yaml")
}

// migrated is what became of one schema.
type migrated struct {
	Schema   string `json:"schema"`
	Database string `json:"database"` // without its password
	From     int64  `json:"from"`     // 0: it was not there
	To       int64  `json:"to"`
	ToDo     bool   `json:"toDo,omitempty"` // with --check
}

// String is the line for people.
func (m migrated) String() string {
	what := fmt.Sprintf("%-8s%s  schema ", m.Schema, m.Database)
	switch {
	case m.ToDo && m.From == 0:
		return what + fmt.Sprintf("%d is to be made", m.To)
	case m.ToDo:
		return what + fmt.Sprintf("%d is to be brought to %d", m.From, m.To)
	case m.From == 0:
		return what + fmt.Sprintf("%d made", m.To)
	case m.From == m.To:
		return what + fmt.Sprintf("%d, nothing to do", m.To)
	default:
		return what + fmt.Sprintf("%d brought to %d", m.From, m.To)
	}
}

// Run migrates what is configured.
func (c migrateCmd) Run(ctx context.Context, con *console) error {
	cfg, err := LoadConfig(c.Config, con.environ)
	if err != nil {
		return err
	}
	if c.Postgres != "" {
		cfg.Postgres.URL, cfg.Postgres.JournalURL, cfg.Postgres.VaultURL = c.Postgres, "", ""
	}
	if cfg.Postgres.journalURL() == "" && cfg.Postgres.vaultURL() == "" {
		return usageError{errors.New("no database is named: --postgres URL, or postgres.url in the configuration (--config, TIDEGATE_POSTGRES_URL)")}
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	tellNoMore := con.tellWaits(ctx, &cfg.Postgres, "migrate", cfg.Postgres.journalURL(), cfg.Postgres.vaultURL())
	all, err := migrateAll(ctx, cfg.Postgres, c.Check)
	tellNoMore()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("stopped before it was known to be done. Each step is there as a whole or not at all, and what is there may not be on the standby yet: run it again, it is safe (%w)", context.Cause(ctx))
	}
	toDo := false
	for _, m := range all {
		toDo = toDo || m.ToDo
		if !c.JSON {
			con.printf("%s\n", m)
		}
	}
	if c.JSON {
		err = errors.Join(con.printJSON(map[string]any{"schemas": all}), err)
	}
	if err == nil && toDo {
		err = errFindings
	}
	return err
}

// migrateAll migrates the journal and the vault, or with check only says what
// there is to do. What was done before an error is returned too.
func migrateAll(ctx context.Context, pg PostgresConfig, check bool) ([]migrated, error) {
	all := []migrated{}
	for _, s := range []struct {
		name, url string
		migrate   func(context.Context, postgres.Options) (from, to int64, err error)
		versions  func(context.Context, postgres.Options) (postgres.Versions, error)
	}{
		{"journal", pg.journalURL(), pgjournal.Migrate, pgjournal.Versions},
		{"vault", pg.vaultURL(), pgvault.Migrate, pgvault.Versions},
	} {
		if s.url == "" {
			continue
		}
		m := migrated{Schema: s.name, Database: postgres.Redact(s.url)}
		var err error
		if check {
			var v postgres.Versions
			if v, err = s.versions(ctx, pg.options(s.url, "migrate")); err == nil && v.Version > v.Known {
				err = &postgres.SchemaError{What: "the " + s.name, Versions: v}
			}
			m.From, m.To, m.ToDo = v.Version, v.Known, v.Version != v.Known
		} else {
			m.From, m.To, err = s.migrate(ctx, pg.options(s.url, "migrate"))
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", m.Database, databaseAdvice(err))
		}
		all = append(all, m)
	}
	return all, nil
}

// waitAdvice is databaseAdvice for what a role waits for, where what is certain
// from the error alone is said: a wait may have other reasons too.
func waitAdvice(err error) error {
	var file *fs.PathError
	code := postgres.Code(err)
	if code == postgres.CodeUndefinedDB || code == postgres.CodeReadOnly || strings.HasPrefix(code, "28") || errors.As(err, &file) {
		return databaseAdvice(err)
	}
	return err
}

// databaseAdvice adds what an operator can do about an error of a database.
func databaseAdvice(err error) error {
	advice := ""
	var schema *postgres.SchemaError
	var file *fs.PathError
	switch code := postgres.Code(err); {
	case errors.As(err, &schema):
		return schema // is a sentence with its own advice
	case errors.As(err, &file):
		advice = file.Path + " cannot be read: see postgres.passwordFile, or the files that the URL names, and that this user may read it"
	case code == postgres.CodeUndefinedDB:
		advice = "there is no such database: create it, with createdb or CREATE DATABASE, or correct the URL"
	case code == postgres.CodeInsufficientPriv:
		advice = "this user lacks a right: GRANT CREATE ON DATABASE … TO the user, or make the user the owner of the schemas tidegate_journal and tidegate_vault"
	case code == postgres.CodeReadOnly:
		advice = "this server is a standby: name the primary"
	case postgres.Final(err):
		advice = "the server does not let this user in: look at the user in the URL, at postgres.passwordFile and at the server's pg_hba.conf"
	case code == "":
		advice = "the server cannot be reached: see that it runs, and that host and port are right"
	default:
		return err
	}
	return fmt.Errorf("%s (%w)", advice, err)
}
