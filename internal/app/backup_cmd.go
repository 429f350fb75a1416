package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/vault/sqlitevault"
)

func joinClose(err, closing error) error { return errors.Join(err, closing) }

type backupCmd struct {
	Data string `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	To   string `help:"Folder for the backup; must not exist, or be empty." required:"" type:"path"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (backupCmd) Help() string {
	return help(`Copies keys, vault and journal consistently, also while a server runs. The tables are not copied:
they are made again from the journal. A plain copy of the files of a running server is not a backup:
journal.db without its journal.db-wal lacks the newest frames.
The backup holds health data and all secret keys: keep it as safe as the data folder.`, "tidegate backup --data data --to /mnt/backup/2026-11-24")
}

// Run makes a backup. Keys first, journal last: every key that signed a frame
// in the copy is in the copy too.
func (c backupCmd) Run(ctx context.Context, con *console) (err error) {
	if _, err := keysOf(c.Data); err != nil {
		return err
	}
	if err := emptyFolder(c.To); err != nil {
		return err
	}
	if err := copyKeys(filepath.Join(c.Data, folderKeys), filepath.Join(c.To, folderKeys)); err != nil {
		return fmt.Errorf("copy the keys: %w", err)
	}
	v, err := sqlitevault.Open(ctx, filepath.Join(c.Data, fileVault), sqlitevault.Options{})
	if err != nil {
		return err
	}
	err = joinClose(v.CopyTo(ctx, filepath.Join(c.To, fileVault)), v.Close())
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
	if err = joinClose(err, j.Close()); err != nil {
		return fmt.Errorf("copy the journal: %w", err)
	}
	j, err = sqlitejournal.Open(ctx, filepath.Join(c.To, fileJournal), sqlitejournal.Options{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("the copy cannot be read back: %w", err)
	}
	end, err := j.End(ctx, shard)
	if err = joinClose(err, j.Close()); err != nil {
		return fmt.Errorf("the copy cannot be read back: %w", err)
	}
	if c.JSON {
		return con.printJSON(map[string]any{"backup": c.To, "position": end.Position})
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
	return joinClose(d.Sync(), d.Close())
}

type restoreCmd struct {
	Data string `help:"Data folder to make; must not exist, or be empty." required:"" type:"path"`
	From string `help:"Folder of the backup." required:"" type:"path"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (restoreCmd) Help() string {
	return help(`Copies a backup into a new data folder and makes the tables again. When reports were acknowledged after
the backup, the journal now ends below its last anchor: a server then refuses to start until the gap
is accepted with "tidegate era open". Phones that still hold those reports send them again.`, "tidegate restore --from /mnt/backup/2026-11-24 --data data")
}

// Run brings a backup back.
func (c restoreCmd) Run(ctx context.Context, con *console) error {
	for _, name := range []string{fileJournal, fileVault, folderKeys} {
		if !exists(filepath.Join(c.From, name)) {
			return fmt.Errorf("%s is no backup: it has no %s", c.From, name)
		}
	}
	if _, err := auth.LoadKeys(filepath.Join(c.From, folderKeys)); err != nil {
		return fmt.Errorf("%s holds no usable keys: %w", c.From, err)
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
	if err := (rebuildCmd{Data: c.Data, JSON: c.JSON}).Run(ctx, con); err != nil || c.JSON {
		return err
	}
	con.printf("Prove it with: tidegate verify --data %s\n", c.Data)
	return nil
}
