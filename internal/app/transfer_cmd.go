package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/ship"
	"github.com/tidegate/tidegate/internal/vault"
	"github.com/tidegate/tidegate/internal/vault/pgvault"
	"github.com/tidegate/tidegate/internal/vault/sqlitevault"
)

type transferCmd struct {
	From   string `help:"Data folder; no server may run on it." required:"" type:"path"`
	To     string `help:"Database for journal and vault: postgres://user@host:5432/tidegate. Default: what the configuration names." placeholder:"URL"`
	Config string `help:"Configuration file: passwordFile, or databases of their own for journal and vault." type:"path"`
	JSON   bool   `help:"Print JSON."`
}

// Help shows an example.
func (transferCmd) Help() string {
	return help(`Moves an installation from one machine to PostgreSQL: every frame is checked and copied as it is, to the same shard and
position, so every receipt stays valid; the vault comes along. The schemas are made if need be, as tidegate migrate does. The folder
stays as it is but for a file named "transferred", which keeps a server from starting on it by accident.
Keys are not copied into a database: the folder's keys/ is the root of the installation, and each role gets its own with
tidegate keys issue. Interrupted, it is simply run again. A database that holds anything else is refused.`, "tidegate transfer --from /var/lib/tidegate --to postgres://tidegate@db/tidegate")
}

// transferredResult is what a transfer came to.
type transferredResult struct {
	From        string     `json:"from"`
	To          string     `json:"to"`
	Position    uint64     `json:"position"` // of the last frame, on both sides
	Frames      uint64     `json:"frames"`
	Facts       uint64     `json:"facts"`
	Copied      uint64     `json:"copied"` // frames that were not there before
	Header      string     `json:"header"` // hash of the last frame's header, on both sides
	Credentials *int       `json:"credentials"`
	Root        string     `json:"root"` // fingerprint
	Schemas     []migrated `json:"schemas"`
	Seconds     float64    `json:"seconds"`
}

// Run moves an installation.
func (c transferCmd) Run(ctx context.Context, con *console) error {
	cfg, err := LoadConfig(c.Config, con.environ)
	if err != nil {
		return err
	}
	if c.To != "" {
		if !postgres.IsURL(c.To) {
			return usageError{errors.New("--to must be postgres://user@host:5432/database")}
		}
		cfg.Postgres.URL, cfg.Postgres.JournalURL, cfg.Postgres.VaultURL = c.To, "", ""
	}
	if cfg.Postgres.journalURL() == "" || cfg.Postgres.vaultURL() == "" {
		return usageError{errors.New("where to? --to postgres://user@host:5432/database, or the postgres section of --config")}
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	f, err := prepareFolder(c.From, "transfer", false, newLog(con.err, LogConfig{Format: "text", Level: "warn"}))
	if err != nil {
		return err
	}
	t := &transfer{folder: f, con: con, pg: cfg.Postgres, config: c.Config, given: c.To != "", result: transferredResult{
		From: f.dir, To: postgres.Redact(cfg.Postgres.journalURL()), Root: f.keys.Fingerprint(),
	}}
	err = t.run(ctx)
	con.progressDone()
	if err = errors.Join(err, f.close()); err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(t.result)
	}
	t.tell()
	return nil
}

// transfer is a transfer at work. The folder's lock is held.
type transfer struct {
	*folder
	con    *console
	pg     PostgresConfig
	config string // file, "" for none
	given  bool   // --to names the database, whatever the file says
	result transferredResult

	credentials []vault.Credential
	hasVault    bool
}

func (t *transfer) run(ctx context.Context) (err error) {
	start := time.Now()
	before, err := readTransferred(t.dir)
	if err != nil {
		return err
	}
	if before != nil && before.To != t.result.To {
		return fmt.Errorf("this folder went to %s already: two places that go on with one journal would differ from then on. If nothing was ever taken there, remove %s and run this again", before.To, t.path(fileTransferred))
	}
	if !exists(t.path(fileJournal)) {
		return fmt.Errorf("%s has no journal: there is nothing to transfer", t.dir)
	}
	src, err := sqlitejournal.Open(ctx, t.path(fileJournal), sqlitejournal.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := t.readVault(ctx); err != nil {
		return err
	}
	if t.result.Schemas, err = migrateAll(ctx, t.pg, false); err != nil {
		return err
	}
	dst, err := pgjournal.Open(ctx, pgjournal.Options{Postgres: t.pg.options(t.pg.journalURL(), "transfer"), Logger: t.log})
	if err != nil {
		return databaseAdvice(err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	secrets, err := pgvault.Open(ctx, pgvault.Options{Postgres: t.pg.options(t.pg.vaultURL(), "transfer")})
	if err != nil {
		return databaseAdvice(err)
	}
	defer func() { err = errors.Join(err, secrets.Close()) }()

	// All that can be refused is refused before anything is written.
	if err := t.vaultFits(ctx, secrets); err != nil {
		return err
	}
	c := &frameCopy{src: src, dst: dst, progress: t.con.progress}
	if err := c.compare(ctx); err != nil {
		return err
	}
	if t.hasVault {
		if err := secrets.Import(ctx, t.credentials); err != nil {
			return fmt.Errorf("copy the vault: %w", err)
		}
	}
	if err := c.copy(ctx); lasting(err) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w. What is there is good: run the same command again and it goes on", err)
	}
	end, err := c.atEnd(ctx)
	if err != nil {
		return err
	}
	t.result.Position, t.result.Header = uint64(end.position), end.hash.String()
	t.result.Frames, t.result.Facts, t.result.Copied = c.frames, c.facts, c.copied
	if t.hasVault {
		n := len(t.credentials)
		t.result.Credentials = &n
	}
	t.result.Seconds = time.Since(start).Seconds()
	marker := transferredTo{To: t.result.To, Position: t.result.Position, At: time.Now().UTC().Truncate(time.Second)}
	if before != nil {
		return nil
	}
	return marker.write(t.dir)
}

// lasting says that running a transfer again would end in the same way.
func lasting(err error) bool {
	var frame *ship.FrameError
	return errors.As(err, &frame) || errors.Is(err, journal.ErrFork) || errors.Is(err, journal.ErrTooLarge)
}

// readVault reads the folder's vault. A folder without one, such as a shipped
// copy, is transferred without.
func (t *transfer) readVault(ctx context.Context) error {
	if !exists(t.path(fileVault)) {
		return nil
	}
	v, err := sqlitevault.Open(ctx, t.path(fileVault), sqlitevault.Options{})
	if err != nil {
		return err
	}
	t.hasVault = true
	t.credentials, err = v.Export(ctx)
	return errors.Join(err, v.Close())
}

// vaultFits refuses a vault that holds other credentials than the folder's.
func (t *transfer) vaultFits(ctx context.Context, v vault.Vault) error {
	there, err := v.Export(ctx)
	if err != nil {
		return err
	}
	if len(there) > 0 && !slices.Equal(there, t.credentials) {
		return fmt.Errorf("the vault at %s holds %d credentials that are not this folder's: name an empty database, or drop the schema tidegate_vault if nobody needs them", postgres.Redact(t.pg.vaultURL()), len(there))
	}
	return nil
}

// tell says what was done and what comes next.
func (t *transfer) tell() {
	r := t.result
	for _, m := range r.Schemas {
		t.con.printf("%s\n", m)
	}
	if r.Credentials != nil {
		t.con.printf("vault   %d credentials\n", *r.Credentials)
	} else {
		t.con.printf("vault   the folder has none: staff get new tokens with `tidegate token staff`\n")
	}
	t.con.printf("journal %d frames with %d facts, %d of them copied now; both sides end at position %d with header %s\n", r.Frames, r.Facts, r.Copied, r.Position, r.Header)
	anchors := ""
	if specs, err := anchorSpecs(Config{}, t.dir, r.Root); err == nil && len(specs) > 0 && exists(specs[0]) {
		anchors = fmt.Sprintf("Name the folder's anchor, %s, in the anchors of the projector's configuration: it knows how far the journal was.\n", specs[0])
	}
	// What reaches the database here reaches it in the proof: a configuration that
	// was given may name a password file, and the URL alone names none.
	file, proof := "FILE", "--journal '"+strings.ReplaceAll(r.To, "'", "")+"'"
	if t.config != "" {
		file = t.config
	}
	switch {
	case t.config != "" && t.given:
		proof += " --config " + t.config
	case t.config != "":
		proof = "--config " + t.config
	}
	t.con.printf(`
Every receipt stays valid. No server starts on %[1]s any more; %[2]s is the root of the installation: keep it safe.
Each role gets keys of its own, and the projector makes the tables:
  tidegate keys issue --data %[1]s --to gateway-1 --name gateway-1
  tidegate serve gateway --data gateway-1 --config %[5]s
%[4]sProve it on both sides:
  tidegate verify --data %[1]s
  tidegate verify --data %[1]s %[3]s
`, t.dir, filepath.Join(t.dir, folderKeys), proof, anchors, file)
}
