package app

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/ship"
)

type shipCmd struct {
	Data       string `help:"Data folder whose journal is copied; a server may run on it. On PostgreSQL a folder with keys, for keys.json." default:"data" type:"path" env:"TIDEGATE_DATA"`
	JournalURL string `help:"PostgreSQL database whose journal is copied, instead of the data folder's." name:"journal" placeholder:"URL"`
	configFlag
	To   string `help:"Where the copy lies: a folder, made if need be, or postgres://user@host:5432/database with a journal of its own (tidegate migrate)." required:""`
	Once bool   `help:"Copy what there is and end, for cron. Without it the journal is followed."`
	JSON bool   `help:"With --once: print JSON."`
}

// Help shows an example.
func (shipCmd) Help() string {
	return help(`Keeps a second copy of the journal, frame by frame, within moments: every frame is checked before it is appended to the
copy, and a copy that holds something else, or more than the journal, is never touched. Either side may be away for a while. A server does the
same by itself with ship.to in its configuration, and shows how far the copy is on /status and in its metrics.
The copy holds health data. It holds no private key: keys.json in it is public. What is erased in the journal later stays in the copy:
a copy must be destroyed, or made anew, when bodies are erased.

A copy on a disk that is mounted lies two folders below the mount point, and the first is made by hand while the disk is there. Only the last one is
made here, so a disk that is not mounted shows as an error; else its copy would fill the disk of the journal itself.

Audit a copy in a folder, at any time:

  tidegate verify --data COPY --root FINGERPRINT

When the journal is lost, put keys/ and vault.db of the last backup into the copy, and serve from it with the anchors of before: reports that
never reached the copy show as a journal below its anchor (era open accepts that gap; phones that hold those reports send them again):

  cp -a BACKUP/keys BACKUP/vault.db COPY/
  tidegate serve --data COPY --anchor WHERE

A copy in a database is served from as it is: name it as postgres.journalURL; the vault is in your backup of it.`, "tidegate ship --data /var/lib/tidegate --to /mnt/other-host/tidegate/copy")
}

// Run ships until it is told to stop, or all is there.
func (c shipCmd) Run(ctx context.Context, con *console) error {
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
	if c.JournalURL != "" {
		cfg.Postgres.URL, cfg.Postgres.JournalURL = c.JournalURL, ""
		if err := cfg.Validate(); err != nil {
			return err
		}
	}
	if c.JSON && !c.Once {
		return usageError{errors.New("--json is for --once: without it there is no result, but a log")}
	}
	if !postgres.IsURL(c.To) {
		if c.To, err = filepath.Abs(c.To); err != nil {
			return err
		}
	}
	source, err := c.source(cfg)
	if err != nil {
		return err
	}
	root, certs, err := c.keys(ctx, con, cfg)
	if err != nil {
		return err
	}
	if w := sameDisk(c.To, c.Data); w != "" && !cfg.inPostgres() {
		con.note("%s", w)
	}
	level := "info"
	if c.Once {
		level = "warn"
	}
	log := newLog(con.err, LogConfig{Format: cfg.Log.Format, Level: level})
	s := shipTo(c.To, cfg.Postgres, root, certs, source, c.Once, func(st ship.Status) {
		con.progress("copying: frame %d of %d", st.Position, st.End)
	}, log)
	if !c.Once {
		log.Info("shipping", "to", s.name)
	}
	err = s.Run(ctx)
	con.progressDone()
	if err != nil {
		return databaseOrOther(err)
	}
	st := s.Status()
	switch {
	case !c.Once:
		log.Info("stopped", "position", uint64(st.Position), "end", uint64(st.End))
	case ctx.Err() != nil:
		return fmt.Errorf("stopped at position %d of %d: what is there is good, run it again", st.Position, st.End)
	case c.JSON:
		return con.printJSON(map[string]any{
			"copy": s.name, "position": st.Position, "header": st.Hash.String(), "committedAt": st.Committed, "copied": st.Frames, "facts": st.Facts,
		})
	default:
		con.printf("%s holds the journal up to position %d, header %s: %d frames with %d facts were copied now.\n", s.name, st.Position, st.Hash, st.Frames, st.Facts)
	}
	return nil
}

// databaseOrOther adds advice to errors of a database only.
func databaseOrOther(err error) error {
	if postgres.Final(err) {
		return databaseAdvice(err)
	}
	return err
}

// source is how the journal that is copied is opened, beside whoever writes it.
func (c shipCmd) source(cfg Config) (func(context.Context) (ship.Source, error), error) {
	if cfg.inPostgres() {
		if cfg.Postgres.journalURL() == c.To {
			return nil, usageError{errors.New("--to names the journal itself: a copy is somewhere else")}
		}
		return func(ctx context.Context) (ship.Source, error) {
			j, err := pgjournal.Open(ctx, pgjournal.Options{Postgres: cfg.Postgres.options(cfg.Postgres.journalURL(), "ship"), ReadOnly: true})
			if err != nil {
				return nil, err
			}
			return j, nil
		}, nil
	}
	from, err := filepath.Abs(c.Data)
	if err != nil {
		return nil, err
	}
	if !exists(filepath.Join(from, fileJournal)) {
		return nil, fmt.Errorf("%s has no journal; a data folder is named with --data, a database with --journal", from)
	}
	if from == c.To {
		return nil, usageError{errors.New("--to names the data folder itself: a copy is somewhere else, best on another host's disk")}
	}
	return func(ctx context.Context) (ship.Source, error) {
		j, err := sqlitejournal.Open(ctx, filepath.Join(from, fileJournal), sqlitejournal.Options{ReadOnly: true})
		if err != nil {
			return nil, err
		}
		return j, nil
	}, nil
}

// keys are what a copy in a folder is given to be audited with.
func (c shipCmd) keys(ctx context.Context, con *console, cfg Config) (ed25519.PublicKey, []receipt.Certificate, error) {
	if postgres.IsURL(c.To) {
		return nil, nil, nil
	}
	if !exists(filepath.Join(c.Data, folderKeys)) {
		// A copy of a copy has the public part.
		if k, err := readCopiedKeys(filepath.Join(c.Data, fileKeysJSON)); err == nil {
			root, err := rootOf(k)
			return root, k.Keys, err
		}
		con.note("%s has no keys, so the copy gets no keys.json: name a folder with keys with --data, or audit the copy with --keys", c.Data)
		return nil, nil, nil
	}
	keys, err := keysIn(c.Data)
	if err != nil {
		return nil, nil, err
	}
	certs := keys.Certificates()
	if !cfg.inPostgres() {
		if all, err := certificatesOf(ctx, c.Data, keys); err == nil {
			certs = all.List()
		}
	}
	return keys.RootPublic(), certs, nil
}

// rootOf is the root public key in a list of keys.
func rootOf(k receipt.Keys) (ed25519.PublicKey, error) {
	b, err := base64.RawURLEncoding.DecodeString(k.Root.PublicKey)
	if err != nil || len(b) != ed25519.PublicKeySize || receipt.Fingerprint(b) != k.Root.Fingerprint {
		return nil, fmt.Errorf("%s of the source is damaged: its root key does not fit its fingerprint", fileKeysJSON)
	}
	return b, nil
}
