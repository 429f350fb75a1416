package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/vault/sqlitevault"
)

// errBackupOnPostgres says how it is done there.
var errBackupOnPostgres = usageError{errors.New("this command copies a data folder, and the journal is in PostgreSQL: back its databases up with the server's own tools (pg_basebackup with archived WAL, or pg_dump of the schemas tidegate_journal and tidegate_vault), keep a copy of the root folder's keys, and let `tidegate ship` keep a verified second copy of the journal; after a restore run `tidegate verify --config FILE`")}

type backupCmd struct {
	Data string `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	To   string `help:"Folder for the backup; must not exist, or be empty." required:"" type:"path"`

	Anchor []string `help:"Anchors that the folder's server writes, if not the default or TIDEGATE_ANCHORS: the backup names them, so that a restore can ask them whether reports are missing."`
	JSON   bool     `help:"Print JSON."`
}

// Help shows an example.
func (backupCmd) Help() string {
	return help(`Copies keys, vault and journal consistently, also while a server runs. The tables are not copied:
they are made again from the journal. anchors.json in the backup names the anchors, for restore. A plain copy of the files of a running server is not a backup:
journal.db without its journal.db-wal lacks the newest frames.
The backup holds health data and all secret keys: keep it as safe as the data folder.`, "tidegate backup --data data --to /mnt/backup/2026-11-24")
}

// Run makes a backup. Keys first, journal last: every key that signed a frame
// in the copy is in the copy too.
func (c backupCmd) Run(ctx context.Context, con *console) (err error) {
	cfg, err := LoadConfig("", con.environ)
	if err != nil {
		return err
	}
	if cfg.inPostgres() {
		return errBackupOnPostgres
	}
	keys, err := keysOf(c.Data)
	if err != nil {
		return err
	}
	if len(c.Anchor) > 0 {
		cfg.Anchors = c.Anchor
	}
	used, err := anchorsToName(cfg, c.Data, keys.Fingerprint())
	if err != nil {
		return err
	}
	if err := emptyFolder(c.To); err != nil {
		return err
	}
	if err := used.write(c.To); err != nil {
		return err
	}
	if err := copyKeys(filepath.Join(c.Data, folderKeys), filepath.Join(c.To, folderKeys)); err != nil {
		return fmt.Errorf("copy the keys: %w", err)
	}
	v, err := sqlitevault.Open(ctx, filepath.Join(c.Data, fileVault), sqlitevault.Options{})
	if err != nil {
		return err
	}
	err = errors.Join(v.CopyTo(ctx, filepath.Join(c.To, fileVault)), v.Close())
	if err != nil {
		return fmt.Errorf("copy the vault: %w", err)
	}
	j, err := sqlitejournal.Open(ctx, filepath.Join(c.Data, fileJournal), sqlitejournal.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	con.progress("copying the journal")
	err = j.CopyTo(ctx, filepath.Join(c.To, fileJournal))
	con.progressDone()
	if err = errors.Join(err, j.Close()); err != nil {
		return fmt.Errorf("copy the journal: %w", err)
	}
	j, err = sqlitejournal.Open(ctx, filepath.Join(c.To, fileJournal), sqlitejournal.Options{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("the copy cannot be read back: %w", err)
	}
	end, err := j.End(ctx, shard)
	if err = errors.Join(err, j.Close()); err != nil {
		return fmt.Errorf("the copy cannot be read back: %w", err)
	}
	if c.JSON {
		return con.printJSON(map[string]any{"backup": c.To, "position": end.Position, "anchors": used.Anchors})
	}
	con.printf("%s holds the journal up to position %d, the vault and the keys.\nProve it with: tidegate verify --data %s\n", c.To, end.Position, c.To)
	return nil
}

// emptyFolder makes dir, which must not exist or be empty.
func emptyFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%s is not empty: name a new folder", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return os.MkdirAll(dir, 0o700)
}

func copyKeys(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	}
	return syncFolder(to)
}

func syncFolder(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type restoreCmd struct {
	Data string `help:"Data folder to make; must not exist, or be empty." required:"" type:"path"`
	From string `help:"Folder of the backup." required:"" type:"path"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (restoreCmd) Help() string {
	return help(`Copies a backup into a new data folder, makes the tables again, and asks the anchors that the backup names
whether reports were acknowledged after it. If so, a server refuses to start until the newer copy is found
or the gap is accepted with "tidegate era open"; phones that still hold those reports send them again.
Until this is settled, anchors.json in the new folder names those anchors, whatever the folder is called.`, "tidegate restore --from /mnt/backup/2026-11-24 --data data")
}

// Run brings a backup back.
func (c restoreCmd) Run(ctx context.Context, con *console) error {
	if cfg, err := LoadConfig("", con.environ); err != nil {
		return err
	} else if cfg.inPostgres() {
		return errBackupOnPostgres
	}
	for _, name := range []string{fileJournal, fileVault, folderKeys} {
		if !exists(filepath.Join(c.From, name)) {
			return fmt.Errorf("%s is no backup: it has no %s", c.From, name)
		}
	}
	keys, err := auth.LoadKeys(filepath.Join(c.From, folderKeys))
	if err != nil {
		return fmt.Errorf("%s holds no usable keys: %w", c.From, err)
	}
	used, err := readUsedAnchors(c.From, keys.Fingerprint())
	if err != nil {
		return err
	}
	if err := emptyFolder(c.Data); err != nil {
		return err
	}
	if err := copyKeys(filepath.Join(c.From, folderKeys), filepath.Join(c.Data, folderKeys)); err != nil {
		return fmt.Errorf("copy the keys: %w", err)
	}
	for _, name := range []string{fileVault, fileJournal} {
		con.progress("copying %s", name)
		if err := copyFile(filepath.Join(c.From, name), filepath.Join(c.Data, name)); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	con.progressDone()
	if err := syncFolder(c.Data); err != nil {
		return err
	}
	anchors, err := c.compare(ctx, used)
	if err != nil {
		return err
	}
	f, err := prepareFolder(c.Data, "restore", false, newLog(con.err, LogConfig{Format: "text", Level: "warn"}))
	if err != nil {
		return err
	}
	tables, err := rebuildTables(ctx, con, f)
	if err = errors.Join(err, f.close()); err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(struct {
			rebuilt
			Anchors []anchorFinding `json:"anchors"`
		}{tables, anchors})
	}
	con.printf("%s\n", tables)
	c.tell(con, anchors)
	return nil
}

// compare compares the restored journal with the anchors that the backup names,
// and leaves their names in the folder for whoever opens it, until all is
// settled.
func (c restoreCmd) compare(ctx context.Context, used usedAnchors) ([]anchorFinding, error) {
	if len(used.Anchors) == 0 {
		return []anchorFinding{}, nil
	}
	used.Restored = time.Now().UTC().Truncate(time.Second)
	if err := used.write(c.Data); err != nil { // before the comparison, which may be cut short
		return nil, err
	}
	found, err := compareRestored(ctx, c.Data, used)
	if err != nil {
		return nil, fmt.Errorf("compare the journal with its anchors: %w", err)
	}
	for _, f := range found {
		if f.State != "held" {
			return found, nil
		}
	}
	return found, removeUsedAnchors(c.Data)
}

// tell says what the comparison came to.
func (c restoreCmd) tell(con *console, anchors []anchorFinding) {
	compared := false
	for _, f := range anchors {
		switch f.State {
		case "held":
			compared = true
			con.printf("The journal holds all that the anchor %s saw.\n", f.Anchor)
		case "below":
			compared = true
			con.printf("REPORTS ARE MISSING. Anchor %s: %s\nA server will refuse to start on %s until one of the two is done.\n", f.Anchor, f.Note, c.Data)
		case "other":
			compared = true
			con.printf("Anchor %s: %s. %s.\nA server will refuse to start on %s until one of these is done.\n", f.Anchor, f.Note, otherKey(c.Data), c.Data)
		default:
			con.printf("The anchor %s was of no use: %s\n", f.Anchor, f.Note)
		}
	}
	switch {
	case !compared && len(anchors) == 0:
		con.printf("Checked against no anchor, the backup names none: whether reports were acknowledged after it is not known. If a server wrote one, ask it before you serve:\n  tidegate verify --data %s --anchor WHERE\n", c.Data)
	case !compared:
		con.printf("Checked against no anchor: whether reports were acknowledged after the backup is not known. Make the anchor reachable before you serve, then run the line below; %s remembers its name.\n", filepath.Join(c.Data, fileAnchors))
	}
	con.printf("Prove it with: tidegate verify --data %s\n", c.Data)
}
