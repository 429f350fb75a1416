package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
	"github.com/tidegate/tidegate/internal/verify"
)

type verifyCmd struct {
	Journal verifyJournalCmd `cmd:"" default:"withargs" help:"Audit a data folder (the default)."`
	Receipt verifyReceiptCmd `cmd:"" help:"Check one receipt, offline."`
}

// Help shows examples.
func (verifyCmd) Help() string {
	return help("Audits a data folder: re-hashes every frame, checks runs, anchors and books, makes the tables again in a\ntemporary place and compares. Changes nothing. Exit code 0: no finding; 1: findings, or it could not be done.\nOne receipt is checked with: tidegate verify receipt --help.", "tidegate verify --data data/demo --acks acks.ndjson")
}

type verifyJournalCmd struct {
	Data       string   `help:"Data folder; a server may run on it. On PostgreSQL a folder with keys: the root folder, or one that was issued." default:"data" type:"path" env:"TIDEGATE_DATA"`
	JournalURL string   `help:"PostgreSQL database with the journal to audit: postgres://…. Tables in it are compared too. With more than that: --config." name:"journal" placeholder:"URL"`
	Keys       string   `help:"With --journal, --config or a copy: what GET /v1/keys answered, instead of a folder with keys; meaning digests are then not recomputed. A copy that tidegate ship made has its own." type:"path"`
	Root       string   `help:"With --keys: fingerprint of the root key, as you got it when the trial began."`
	Acks       string   `help:"Acknowledgements that tidegate load wrote: each must be there, unaltered, counted once." type:"path"`
	NoRebuild  bool     `help:"Do not compare the tables with a rebuild; much faster."`
	Anchor     []string `help:"Anchors to compare with. Default: the file beside the data folder; on PostgreSQL those of the configuration."`
	JSON       bool     `help:"Print JSON."`
	configFlag
}

// Help shows an example.
func (verifyJournalCmd) Help() string {
	return help(`Re-hashes every frame, checks runs, anchors and books, makes the tables again in a temporary place and
compares. Changes nothing. Exit code 0: no finding; 1: findings, or the audit could not be done.`, "tidegate verify --data data/demo --acks acks.ndjson")
}

// Run audits a journal.
func (c verifyJournalCmd) Run(ctx context.Context, con *console) (err error) {
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
	if c.JournalURL != "" {
		if !postgres.IsURL(c.JournalURL) {
			return usageError{errors.New("--journal takes a URL such as postgres://user@host:5432/tidegate; a journal in a data folder is named with --data")}
		}
		cfg.Postgres.URL, cfg.Postgres.JournalURL = c.JournalURL, c.JournalURL
		if c.Config == "" {
			cfg.Postgres.StoreURL = ""
		}
	}
	if !cfg.inPostgres() && c.Keys == "" && !exists(filepath.Join(c.Data, folderKeys)) && exists(filepath.Join(c.Data, fileKeysJSON)) {
		if c.Keys = filepath.Join(c.Data, fileKeysJSON); c.Root == "" { // a copy, as tidegate ship makes it
			k, err := readCopiedKeys(c.Keys)
			if err != nil {
				return err
			}
			c.Root = k.Root.Fingerprint
			con.note("the keys are those in the copy, of root %s: compare it with what you wrote down, or give --root", c.Root)
		}
	}
	if (c.Keys == "") != (c.Root == "") {
		return usageError{errors.New("--keys and --root belong together: the fingerprint says whose keys the file holds")}
	}
	open := c.openFolder
	if cfg.inPostgres() {
		open = c.openPostgres
	} else if c.Keys != "" && exists(filepath.Join(c.Data, folderKeys)) {
		return usageError{errors.New("--keys is for a journal on PostgreSQL or a copy: a data folder has its keys")}
	}
	audited, err := open(ctx, con, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, audited.close()) }()
	in := audited.Input
	in.Progress = func(p verify.Progress) {
		if p.Total > 0 {
			con.progress("%s: %d of %d", p.Stage, p.Done, p.Total)
		} else {
			con.progress("%s: %d", p.Stage, p.Done)
		}
	}
	if c.Acks != "" {
		f, err := os.Open(filepath.Clean(c.Acks))
		if err != nil {
			return fmt.Errorf("acks: %w", err)
		}
		defer f.Close() //nolint:errcheck // only read
		in.Acks = f
		if info, err := f.Stat(); err == nil {
			in.AcksBytes = uint64(info.Size()) //nolint:gosec // not negative
		}
	}
	if in.Tables == nil {
		con.note("there are no tables, so every report is pending, and dispositions and books are not checked; a server, or `tidegate rebuild`, makes them")
	} else if !c.NoRebuild {
		in.Rebuild = rebuildFor(in.Journal)
	}
	result, err := verify.Run(ctx, in)
	con.progressDone()
	if err != nil {
		return err
	}
	if c.JSON {
		err = result.WriteJSON(con.out)
	} else {
		err = result.WriteText(con.out)
	}
	if err == nil && !result.OK() {
		err = errFindings
	}
	return err
}

// audited is what there is to audit, opened for reading.
type audited struct {
	verify.Input
	closers []io.Closer
}

func (a *audited) close() error {
	var errs []error
	for _, c := range slices.Backward(a.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// openFolder opens the data folder of one machine.
func (c verifyJournalCmd) openFolder(ctx context.Context, con *console, cfg Config) (a *audited, err error) {
	a = &audited{}
	var fingerprint string
	if c.Keys != "" {
		if a.Input.Keys, err = c.readKeys(con); err != nil {
			return nil, err
		}
		fingerprint = c.Root
	} else {
		keys, err := keysOf(c.Data)
		if err != nil {
			return nil, err
		}
		// The facts tell of retirements too; without tables the folder's certificates must do.
		certs := keys.Certificates()
		if all, err := certificatesOf(ctx, c.Data, keys); err == nil {
			certs = all.List()
		}
		fingerprint, a.MeaningKey = keys.Fingerprint(), keys.MeaningKey
		if a.Input.Keys, err = receipt.NewKeySet(receipt.NewKeys(keys.RootPublic(), certs...), fingerprint); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.Anchors, err = c.readAnchors(ctx, con, cfg, fingerprint); err != nil {
		return a, err
	}
	j, err := sqlitejournal.Open(ctx, filepath.Join(c.Data, fileJournal), sqlitejournal.Options{ReadOnly: true, Audit: true})
	if err != nil {
		return a, err
	}
	a.Journal, a.closers = j, append(a.closers, j)
	tables, err := sqlitestore.OpenReader(ctx, filepath.Join(c.Data, fileStore))
	if errors.Is(err, os.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	a.Tables, a.closers = tables, append(a.closers, tables)
	return a, nil
}

// readKeys reads the keys that --keys names.
func (c verifyJournalCmd) readKeys(con *console) (*receipt.KeySet, error) {
	b, err := os.ReadFile(filepath.Clean(c.Keys))
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	set, err := receipt.ParseKeys(b, c.Root)
	if err == nil {
		con.note("meaning digests are not recomputed: that takes the meaning key of a folder with keys (--data)")
	}
	return set, err
}

// openPostgres opens a journal in PostgreSQL, and the tables if they can be
// reached. Who signed is told by the journal itself, under the root key.
func (c verifyJournalCmd) openPostgres(ctx context.Context, con *console, cfg Config) (a *audited, err error) {
	pg := cfg.Postgres
	a = &audited{}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	j, err := pgjournal.Open(ctx, pgjournal.Options{Postgres: pg.options(pg.journalURL(), "verify"), ReadOnly: true})
	if err != nil {
		return a, err
	}
	a.Journal, a.closers = j, append(a.closers, j)
	var fingerprint string
	if c.Keys != "" {
		if a.Input.Keys, err = c.readKeys(con); err != nil {
			return a, err
		}
		fingerprint = c.Root
	} else {
		keys, err := keysIn(c.Data)
		if err != nil {
			return a, err
		}
		con.progress("looking for the certified keys")
		certs, err := certificatesIn(ctx, j, keys.RootPublic())
		con.progressDone()
		if err != nil {
			return a, err
		}
		if len(certs.List()) == 0 && len(certs.Foreign()) > 0 {
			return a, &otherInstallationError{first: certs.Foreign()[0].KeyID, root: keys.Fingerprint(), dir: c.Data}
		}
		fingerprint, a.MeaningKey = keys.Fingerprint(), keys.MeaningKey
		if a.Input.Keys, err = receipt.NewKeySet(receipt.NewKeys(keys.RootPublic(), joined(certs.List(), keys.Certificates())...), fingerprint); err != nil {
			return a, err
		}
	}
	if len(c.Anchor) > 0 || len(cfg.Anchors) > 0 {
		if a.Anchors, err = c.readAnchors(ctx, con, cfg, fingerprint); err != nil {
			return a, err
		}
	} else {
		con.note("no anchor is named, so a cut tail would go unseen: --anchor, or anchors in the configuration")
	}
	tables, err := pgstore.Open(ctx, pgstore.Options{Postgres: pg.options(pg.storeURL(), "verify"), ReadOnly: true})
	switch {
	case errors.Is(err, os.ErrNotExist):
		return a, nil
	case err != nil && c.Config == "":
		con.note("the tables could not be opened beside the journal, and are not compared (%v): name where they are with --config", err)
		return a, nil
	case err != nil:
		return a, err
	}
	a.Tables, a.closers = tables, append(a.closers, tables)
	return a, nil
}

// readAnchors reads what the anchors hold.
func (c verifyJournalCmd) readAnchors(ctx context.Context, con *console, cfg Config, fingerprint string) ([]verify.Anchor, error) {
	if len(c.Anchor) > 0 {
		cfg.Anchors = c.Anchor
	}
	anchors, _, err := anchorsOf(cfg, c.Data, fingerprint)
	if err != nil {
		return nil, usageError{err}
	}
	own := len(anchors)
	used, err := readUsedAnchors(c.Data, fingerprint)
	if err != nil {
		return nil, err
	}
	// In a backup the file tells of a folder that may have gone on since.
	if !used.Restored.IsZero() {
		earlier, err := used.open()
		if err != nil {
			return nil, err
		}
		for _, e := range earlier {
			if !slices.ContainsFunc(anchors, func(a receipt.Anchor) bool { return a.String() == e.String() }) {
				anchors = append(anchors, e)
			}
		}
	}
	var out []verify.Anchor
	for i, a := range anchors {
		signed, err := a.Read(ctx)
		switch {
		case err == nil:
			out = append(out, verify.Anchor{Name: a.String(), Signed: signed})
		case errors.Is(err, receipt.ErrNoAnchor):
			con.note("the anchor %s holds no checkpoint: a cut tail would go unseen", a)
		case i >= own:
			con.note("the anchor %s of before the restore could not be read: a cut tail would go unseen (%v)", a, err)
		default:
			return nil, fmt.Errorf("anchor %s: %w", a, err)
		}
	}
	return out, nil
}

// rebuildFor projects a journal into temporary tables, as far as the audited
// tables are, and hashes them.
func rebuildFor(j journal.Journal) verify.Rebuild {
	return func(ctx context.Context, upTo map[uint32]journal.Position, progress func(done, total uint64)) (hash epro.Digest, err error) {
		dir, err := os.MkdirTemp("", "tidegate-verify-")
		if err != nil {
			return hash, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		err = sqlitestore.Build(ctx, filepath.Join(dir, fileStore), func(s store.Store) error {
			for shard, position := range upTo {
				if err := projector.RebuildTo(ctx, j, s, shard, position, projector.Options{}, func(done, total journal.Position) {
					progress(uint64(done), uint64(total))
				}); err != nil {
					return err
				}
			}
			hash, err = s.Hash(ctx)
			return err
		})
		return hash, err
	}
}
