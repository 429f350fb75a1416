package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tidegate/tidegate/internal/auth"
)

// Keys of the second shape: one root folder, kept by the operator, and for each
// process a folder with keys that were issued from it.

type keysInitCmd struct {
	Data string `help:"Root folder to make." required:"" type:"path" env:"TIDEGATE_DATA"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (keysInitCmd) Help() string {
	return help(`Makes the keys of a new installation whose journal is in PostgreSQL, and no database. Keep the folder with the
operator: every process gets keys of its own from it. An installation that was transferred has a root folder
already: its former data folder.`, "tidegate keys init --data root")
}

// Run makes a root folder.
func (c keysInitCmd) Run(con *console) error {
	f, err := prepareFolder(c.Data, "keys init", true, newLog(con.err, LogConfig{Format: "text", Level: "error"}))
	if err != nil {
		return err
	}
	fingerprint, fresh := f.keys.Fingerprint(), f.fresh
	if fresh {
		err = replaceFile(f.path(fileRootOnly), []byte("The keys of an installation whose journal is in PostgreSQL. No journal is begun in this folder.\n"))
	}
	if err := errors.Join(err, f.close()); err != nil {
		return err
	}
	if !fresh {
		return fmt.Errorf("%s holds keys already, of root %s: issue keys from it, or name another folder", c.Data, fingerprint)
	}
	if c.JSON {
		return con.printJSON(map[string]string{"root": fingerprint, "keys": filepath.Join(c.Data, folderKeys)})
	}
	con.printf(`root     %s

Write this fingerprint down: it is all that an auditor must have from elsewhere than the server.
Back the folder up, and take keys/root.key off line when no keys are being issued. Next, for each process:
  tidegate keys issue --data %s --name gateway-1 --to gateway-1
`, fingerprint, c.Data)
	return nil
}

type keysIssueCmd struct {
	Data string `help:"Root folder: what keys init made, or the data folder that was transferred." default:"data" type:"path" env:"TIDEGATE_DATA"`
	To   string `help:"Data folder of the process; keys/ is made in it, or renewed." required:"" type:"path"`
	Name string `help:"Name of the process, such as gateway-1; it stands in keys list." required:""`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (keysIssueCmd) Help() string {
	return help(`Writes what one process of many needs: token keys, meaning key, root public key, and a signing key of its own with
its certificate; never the root key, which must be at hand in the root folder. Works beside a running server.
Again for the same folder: one more signing key, which signs from the process's next start on, and token keys made
since. That is how the key of one process is rotated; older receipts stay valid.`, "tidegate keys issue --data root --name gateway-1 --to gateway-1")
}

// Run issues keys.
func (c keysIssueCmd) Run(con *console) error {
	if err := auth.CheckName(c.Name); err != nil {
		return usageError{fmt.Errorf("--name: %w", err)}
	}
	keys, err := keysOf(c.Data)
	if err != nil {
		return err
	}
	unlock, err := lockTarget(c.To)
	if err != nil {
		return err
	}
	before, err := issuedTo(keys, c.Name)
	if err != nil {
		return errors.Join(err, unlock())
	}
	to := filepath.Join(c.To, folderKeys)
	issued, err := keys.Issue(to, c.Name)
	if err = errors.Join(err, unlock()); err != nil {
		return err
	}
	id := issued.Certificate.KeyID
	if c.JSON {
		return con.printJSON(struct {
			Name    string   `json:"name"`
			KeyID   string   `json:"keyId"`
			Keys    string   `json:"keys"`
			Root    string   `json:"root"`
			Earlier []string `json:"earlier"`
		}{c.Name, id, to, keys.Fingerprint(), append([]string{}, before...)})
	}
	con.printf("%s  signing key %s, in %s\n", c.Name, id, to)
	if len(before) == 0 {
		con.printf("Bring the folder to its machine over a safe way, and leave no copy. Its process tells the journal of the key when it starts.\n")
		return nil
	}
	elsewhere, err := journalElsewhere(c.Data)
	if err != nil {
		return err
	}
	where := ""
	if elsewhere {
		where = " --config FILE"
	}
	con.printf("Start %s again with this folder; then retire what it signed with before:\n", c.Name)
	for _, id := range before {
		con.printf("  tidegate keys retire %s --data %s%s\n", id, c.Data, where)
	}
	if elsewhere {
		con.printf("FILE names the database, as the configuration of %s does: only its journal tells the others.\n", c.Name)
	}
	return nil
}

// issuedTo are the keys issued for a name so far, the oldest first.
func issuedTo(keys *auth.Keys, name string) (ids []string, err error) {
	list, err := keys.Issued()
	for _, i := range list {
		if i.Name == name {
			ids = append(ids, i.Certificate.KeyID)
		}
	}
	return ids, err
}

// lockTarget keeps two commands from issuing to one folder at the same time.
// The folder's LOCK is not asked: a process that serves from it reads its keys
// once, at its start.
func lockTarget(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the process: %w", err)
	}
	f, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return nil, fmt.Errorf("folder of the process: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { //nolint:gosec // a file descriptor
		defer f.Close() //nolint:errcheck // only read
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("keys are being issued to %s by another command at this moment", dir)
		}
		return nil, fmt.Errorf("lock %s (a network file system? use a local one): %w", dir, err)
	}
	return f.Close, nil
}

type keysInstallCmd struct {
	From string `help:"Issued keys: the folder that was issued to, its keys/ as it is mounted, or a file of keys pack." required:"" type:"path"`
	Data string `help:"Data folder of the process; made if it does not exist." default:"data" type:"path" env:"TIDEGATE_DATA"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (keysInstallCmd) Help() string {
	return help(`Copies issued keys into the data folder of a process, for the user that runs this, modes 0700 and 0600. For
container engines, which mount secrets with owners and modes of their own: run it before the process starts. Keys
of the same name that are there are replaced by newer ones; keys of anybody else are refused.`, "tidegate keys install --from /run/secrets/keys --data /var/lib/tidegate/data")
}

// Run installs keys.
func (c keysInstallCmd) Run(con *console) error {
	from := c.From
	if exists(filepath.Join(from, folderKeys)) {
		from = filepath.Join(from, folderKeys)
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	l, err := takeLock(c.Data, "keys install")
	if err != nil {
		return err
	}
	keys, changed, err := auth.InstallKeys(from, filepath.Join(c.Data, folderKeys))
	if err = errors.Join(err, l.release()); err != nil {
		return err
	}
	id := keys.Signer().KeyID().String()
	if c.JSON {
		return con.printJSON(map[string]any{"name": keys.Name(), "keyId": id, "root": keys.Fingerprint(), "changed": changed})
	}
	what := "installed"
	if !changed {
		what = "there already"
	}
	con.printf("%s  signing key %s, %s\n", keys.Name(), id, what)
	return nil
}

type keysPackCmd struct {
	Data string `help:"Folder that keys were issued to." required:"" type:"path"`
	To   string `help:"File to write, mode 0600." required:"" type:"path"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (keysPackCmd) Help() string {
	return help(`Puts the issued keys of one process into one file, for a secret store that holds values by name (one value for each
pod). keys install takes it. The file is as secret as the keys.`, "tidegate keys pack --data gateway-1 --to gateway-1.keys")
}

// Run packs keys.
func (c keysPackCmd) Run(con *console) error {
	keys, err := keysOf(c.Data)
	if err != nil {
		return err
	}
	pack, err := keys.Pack()
	if err != nil {
		return err
	}
	if err := writePrivateFile(c.To, pack); err != nil {
		return fmt.Errorf("write %s: %w", c.To, err)
	}
	if c.JSON {
		return con.printJSON(map[string]string{"name": keys.Name(), "keyId": keys.Signer().KeyID().String(), "file": c.To})
	}
	con.printf("%s  %s\n", keys.Name(), c.To)
	return nil
}

// writePrivateFile writes a new file for this user alone.
func writePrivateFile(path string, content []byte) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
