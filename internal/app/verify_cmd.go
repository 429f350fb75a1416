package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
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
	Data      string   `help:"Data folder; a server may run on it." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Acks      string   `help:"Acknowledgements that tidegate load wrote: each must be there, unaltered, counted once." type:"path"`
	NoRebuild bool     `help:"Do not compare the tables with a rebuild; much faster."`
	Anchor    []string `help:"Anchors to compare with. Default: the file beside the data folder."`
	JSON      bool     `help:"Print JSON."`
}

// Help shows an example.
func (verifyJournalCmd) Help() string {
	return help(`Re-hashes every frame, checks runs, anchors and books, makes the tables again in a temporary place and
compares. Changes nothing. Exit code 0: no finding; 1: findings, or the audit could not be done.`, "tidegate verify --data data/demo --acks acks.ndjson")
}

// Run audits a data folder.
func (c verifyJournalCmd) Run(ctx context.Context, con *console) (err error) {
	keys, err := keysOf(c.Data)
	if err != nil {
		return err
	}
	// The facts tell of retirements too; without tables the folder's certificates must do.
	certs, err := certificatesOf(ctx, c.Data, keys)
	if err != nil {
		certs = keys.Certificates()
	}
	set, err := receipt.NewKeySet(receipt.NewKeys(keys.RootPublic(), certs...), keys.Fingerprint())
	if err != nil {
		return err
	}
	in := verify.Input{Keys: set, MeaningKey: keys.MeaningKey, Progress: func(p verify.Progress) {
		if p.Total > 0 {
			con.progress("%s: %d of %d", p.Stage, p.Done, p.Total)
		} else {
			con.progress("%s: %d", p.Stage, p.Done)
		}
	}}
	if in.Anchors, err = c.readAnchors(ctx, con, keys.Fingerprint()); err != nil {
		return err
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
	j, err := sqlitejournal.Open(ctx, filepath.Join(c.Data, fileJournal), sqlitejournal.Options{ReadOnly: true, Audit: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	in.Journal = j
	tables, err := sqlitestore.OpenReader(ctx, filepath.Join(c.Data, fileStore))
	switch {
	case err == nil:
		defer func() { err = errors.Join(err, tables.Close()) }()
		in.Tables = tables
		if !c.NoRebuild {
			in.Rebuild = rebuildFor(j)
		}
	case errors.Is(err, os.ErrNotExist):
		con.note("there are no tables, so every report is pending, and dispositions and books are not checked; a server, or `tidegate rebuild`, makes them")
	default:
		return err
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

// readAnchors reads what the anchors hold.
func (c verifyJournalCmd) readAnchors(ctx context.Context, con *console, fingerprint string) ([]verify.Anchor, error) {
	cfg, err := LoadConfig("", con.environ)
	if err != nil {
		return nil, err
	}
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
