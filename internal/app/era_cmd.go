package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

type eraCmd struct {
	Open eraOpenCmd `cmd:"" help:"Accept that the journal ends below its last anchor, and go on."`
}

type eraOpenCmd struct {
	Data   string   `help:"Data folder; no server may run on it." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Reason string   `help:"Why; it stands in the audit for ever." required:""`
	Anchor []string `help:"The anchors that the journal ends below, if they are not the default."`
	JSON   bool     `help:"Print JSON."`
	configFlag
}

// Help shows an example.
func (eraOpenCmd) Help() string {
	return help(`After a restore from an older backup, frames that were acknowledged later are missing: the last anchor
knows them, the journal does not. This records that gap as a fact, with the reason, and goes on in a
new era. Anchors of before a restore (anchors.json in the folder) count too. First look for the newer copy: what is given up here comes back only from phones.`, `tidegate era open --data data --reason "disk lost on 2026-11-23, backup of 02:00 restored"`)
}

// Run opens an era.
func (c eraOpenCmd) Run(ctx context.Context, con *console) error {
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
	if len(c.Anchor) > 0 {
		cfg.Anchors = c.Anchor
	}
	log := newLog(con.err, LogConfig{Format: "text", Level: "warn"})
	if cfg.inPostgres() && len(cfg.Anchors) == 0 {
		return usageError{errors.New("name the anchors that the journal ends below, with --anchor or anchors in the configuration: on PostgreSQL there is no default for this command")}
	}
	// Without the check that this command is there to settle.
	n, err := openCommand(ctx, cfg, "era open", false, recordPath, (*node).remakeOtherTables, log)
	if err != nil {
		return err
	}
	return errors.Join(c.open(ctx, con, n), n.close(context.WithoutCancel(ctx)))
}

func (c eraOpenCmd) open(ctx context.Context, con *console, n *node) error {
	keys, err := n.signersOfAnchors(ctx)
	if err != nil {
		return err
	}
	var eras []openedEra
	for i, a := range slices.Concat(n.anchors, n.earlier) {
		signed, err := a.Read(ctx)
		if errors.Is(err, receipt.ErrNoAnchor) {
			continue
		}
		if err != nil && i >= len(n.anchors) {
			con.note("the anchor %s of before the restore could not be read, and is not asked any more: %v", a, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("anchor %s: %w", a, err)
		}
		var below *receipt.BelowAnchorError
		if err := receipt.CheckAnchor(ctx, n.journal, shard, signed, keys); err == nil {
			continue
		} else if !errors.As(err, &below) {
			return fmt.Errorf("anchor %s: %w", a, err)
		}
		era, err := c.record(ctx, n, a, below)
		if err != nil {
			return err
		}
		eras = append(eras, era)
		if !c.JSON {
			con.printf("Era %d is open. Anchor %s had seen %d frames, the journal had %d: reports of the missing frames come back only from phones that still hold them.\n",
				era.Era, a, era.AnchorFrames, era.Frames)
		}
	}
	if len(eras) == 0 {
		return errors.New("no anchor is above this journal's end: there is nothing to accept, and no era was opened")
	}
	if err := removeUsedAnchors(n.dir); err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(map[string]any{"eras": eras})
	}
	return nil
}

// openedEra is what was accepted about one anchor.
type openedEra struct {
	Era          uint64 `json:"era"`
	Anchor       string `json:"anchor"`
	AnchorFrames uint64 `json:"anchorFrames"` // that the anchor had seen
	Frames       uint64 `json:"frames"`       // that the journal had
}

func (c eraOpenCmd) record(ctx context.Context, n *node, a receipt.Anchor, below *receipt.BelowAnchorError) (openedEra, error) {
	cursor, err := n.caughtUp(ctx)
	if err != nil {
		return openedEra{}, err
	}
	era := openedEra{cursor.Era + 1, a.String(), below.Checkpoint.Frames, cursor.Frames}
	out, err := n.apply(ctx, registry.Command{
		Kind: epro.KindEraOpened, ID: epro.NewUUID(), Actor: systemActor("operator"),
		Body: epro.EraOpened{Reason: c.Reason, Era: era.Era, AnchorDigest: below.Digest, AnchorFrames: era.AnchorFrames, Frames: era.Frames},
	})
	if err != nil {
		return era, err
	}
	if !out.Applied {
		return era, fmt.Errorf("rejected: %s", out.Reason)
	}
	return era, nil
}

// caughtUp waits until every frame is in the tables, so that their cursor
// counts the frames that the era's own will follow.
func (n *node) caughtUp(ctx context.Context) (store.Cursor, error) {
	for {
		changed := n.projector.Changed()
		lag, err := n.projector.Lag(ctx)
		if err != nil {
			return store.Cursor{}, err
		}
		if lag.Applied >= lag.End {
			return n.store.Cursor(ctx, shard)
		}
		if err := n.projector.Err(); err != nil {
			return store.Cursor{}, fmt.Errorf("the tables cannot catch up: %w", err)
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return store.Cursor{}, ctx.Err()
		}
	}
}
