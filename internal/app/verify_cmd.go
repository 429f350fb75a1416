package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
	defer func() { err = joinClose(err, j.Close()) }()
	in.Journal = j
	tables, err := sqlitestore.OpenReader(ctx, filepath.Join(c.Data, fileStore))
	switch {
	case err == nil:
		defer func() { err = joinClose(err, tables.Close()) }()
		in.Tables = tables
		if !c.NoRebuild {
			in.Rebuild = rebuildFor(j)
		}
	case errors.Is(err, os.ErrNotExist):
		con.note("there are no tables, so dispositions and books are not checked; a server, or `tidegate rebuild`, makes them")
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

type verifyReceiptCmd struct {
	File   string `arg:"" help:"File with the receipt's text, or - for standard input. The JSON answer to a report will do too."`
	Keys   string `help:"What GET /v1/keys answered, or tidegate keys list --json printed." required:"" type:"path"`
	Root   string `help:"Fingerprint of the root key, as you got it when the trial began." required:""`
	Report string `help:"File with the report's exact bytes as sent: proves that this is what was received." type:"path"`
	JSON   bool   `help:"Print JSON."`
}

// Help shows an example.
func (verifyReceiptCmd) Help() string {
	return help(`Needs no server and no data folder. Exit code 0: the receipt proves what it says; 1: it does not.`, "tidegate verify receipt receipt.txt --keys keys.json --root 1f0c… --report report.json")
}

// maxReceiptFile bounds what is read: a receipt inside an answer is far smaller.
const maxReceiptFile = 1 << 20

// Run checks one receipt.
func (c verifyReceiptCmd) Run(con *console) error {
	text, err := c.read(con)
	if err != nil {
		return err
	}
	keysJSON, err := os.ReadFile(filepath.Clean(c.Keys))
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	keys, err := receipt.ParseKeys(keysJSON, c.Root)
	if err != nil {
		return err
	}
	r, err := receipt.Parse(text)
	if err != nil {
		return err
	}
	if err := r.Check(keys); err != nil {
		return err
	}
	matches := ""
	if c.Report != "" {
		body, err := os.ReadFile(filepath.Clean(c.Report))
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		if !r.MatchesBody(body) {
			return errors.New("the receipt is genuine, but it was not given for these bytes: the report was changed, or it is another one")
		}
		matches = "these are the bytes that were received"
	}
	return c.print(con, r, matches)
}

func (c verifyReceiptCmd) read(con *console) (string, error) {
	in := con.in
	if c.File != "-" {
		f, err := os.Open(filepath.Clean(c.File))
		if err != nil {
			return "", fmt.Errorf("receipt: %w", err)
		}
		defer f.Close() //nolint:errcheck // only read
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxReceiptFile))
	if err != nil {
		return "", fmt.Errorf("receipt: %w", err)
	}
	text := strings.TrimSpace(string(b))
	var answer struct {
		Receipt string `json:"receipt"`
	}
	if strings.HasPrefix(text, "{") && json.Unmarshal(b, &answer) == nil && answer.Receipt != "" {
		text = answer.Receipt
	}
	return text, nil
}

func (c verifyReceiptCmd) print(con *console, r *receipt.Receipt, matches string) error {
	f, err := r.Fact()
	if err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(map[string]any{
			"valid": true, "kind": f.Kind.String(), "trialId": f.Trial, "patientId": f.Subject, "reportId": f.ID,
			"completedAt": f.OccurredAt, "receivedAt": f.ReceivedAt, "committedAt": r.Header.CommittedAt(), "durability": r.Class.String(),
			"keyId": r.KeyID.String(), "run": r.Header.Run.String(), "n": r.Header.N, "index": r.Index, "reportMatches": matches != "",
		})
	}
	con.printf("valid: a certified key signed that this fact is durable (%s)\n", r.Class)
	con.printf("%-12s %s\n", "fact", f.Kind)
	for _, line := range [][2]string{
		{"trial", f.Trial},
		{"patient", f.Subject},
		{"report", f.ID.String()},
		{"by", f.Actor.Type.String() + " " + f.Actor.ID + " " + f.Actor.Device},
		{"completedAt", f.OccurredAt.Format(time.RFC3339Nano)},
		{"receivedAt", f.ReceivedAt.Format(time.RFC3339Nano)},
		{"committedAt", r.Header.CommittedAt().Format(time.RFC3339Nano)},
		{"frame", fmt.Sprintf("run %s n %d, fact %d of %d", r.Header.Run, r.Header.N, r.Index+1, r.Header.Count)},
		{"key", r.KeyID.String()},
	} {
		con.printf("%-12s %s\n", line[0], line[1])
	}
	if matches != "" {
		con.printf("%-12s %s\n", "bytes", matches)
	} else {
		con.printf("%-12s not compared: give --report FILE with what was sent\n", "bytes")
	}
	return nil
}
