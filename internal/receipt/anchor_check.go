package receipt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// BelowAnchorError says that a journal is not the one its anchor saw, or no
// longer all of it: it takes no appends until an operator decided what to do.
type BelowAnchorError struct {
	Checkpoint Checkpoint       // what the anchor says
	Digest     string           // of the anchor's bytes, as era.opened cites it
	End        journal.Position // where the journal ends now
	Other      bool             // there is a frame in the anchor's place, but another one
}

// Error is what the operator reads.
func (e *BelowAnchorError) Error() string {
	c := &e.Checkpoint
	seen := fmt.Sprintf("the anchor of %s saw %d frames up to position %d of shard %d",
		c.Time.UTC().Format(time.RFC3339), c.Frames, c.Position, c.Shard)
	what := fmt.Sprintf("but the journal ends at position %d: the frames behind it are missing, and with them reports that were acknowledged", e.End)
	if e.Other {
		what = fmt.Sprintf("but at position %d the journal has another frame than it had then (it ends at %d)", c.Position, e.End)
	}
	return seen + ", " + what + "; likely an older backup was put back, the data folder was copied without its -wal, or the journal's tail was cut off. " +
		"Nothing is taken until this is settled: restore the newer copy, or accept the gap with: tidegate era open --data DIR --reason \"…\""
}

// AnchorDigest is how an era.opened fact cites an anchor: the hexadecimal
// SHA-256 of the checkpoint's bytes as the anchor holds them.
func AnchorDigest(signed []byte) string {
	sum := sha256.Sum256(signed)
	return hex.EncodeToString(sum[:])
}

// CheckAnchor says whether the journal still holds what the anchor saw: the
// frame at the anchor's position has the anchor's header. That is one read,
// whatever the journal's length; `tidegate verify` compares the whole tree.
//
// It returns a *[BelowAnchorError] when it does not, unless an era.opened fact
// in the journal cites this anchor; that is looked for frame by frame, and only
// then. An anchor that no certified key signed is an [ErrCheckpoint].
func CheckAnchor(ctx context.Context, j journal.Journal, shard uint32, signed []byte, keys *KeySet) error {
	c, err := keys.OpenCheckpoint(signed)
	if err != nil {
		return fmt.Errorf("the anchor does not help: %w; if you know why, move it away and start again", err)
	}
	if c.Shard != shard {
		return fmt.Errorf("%w: the anchor is of shard %d, not of shard %d", ErrCheckpoint, c.Shard, shard)
	}
	return holds(ctx, j, shard, &c, signed)
}

// CheckAnchorText is [CheckAnchor] by what the anchor says alone, whoever signed
// it: for when the keys that may have signed it cannot be known, because what
// would tell them is what may be missing. nil is no proof; a *[BelowAnchorError]
// is reason enough to stop and look. An anchor of another root or shard says
// nothing of this journal.
func CheckAnchorText(ctx context.Context, j journal.Journal, shard uint32, signed []byte, fingerprint string) error {
	c, err := PeekCheckpoint(signed)
	if err != nil || c.Origin() != Origin(fingerprint, shard) {
		return nil
	}
	return holds(ctx, j, shard, &c, signed)
}

// holds says whether the journal has the frame that a checkpoint ends with.
func holds(ctx context.Context, j journal.Journal, shard uint32, c *Checkpoint, signed []byte) error {
	below := &BelowAnchorError{Checkpoint: *c, Digest: AnchorDigest(signed)}
	var gap *journal.GapError
	records, err := j.Read(ctx, shard, c.Position-1, 1)
	switch {
	case errors.As(err, &gap):
		// The frame itself is gone while later ones are there.
		below.Other = true
	case err != nil:
		return fmt.Errorf("compare the journal with its anchor: %w", err)
	case len(records) == 1 && records[0].Position == c.Position:
		if f, err := journal.DecodeFrame(records[0].Bytes); err == nil && f.Header.Hash() == c.Header {
			return nil
		}
		below.Other = true
	}
	end, err := j.End(ctx, shard)
	if err != nil {
		return fmt.Errorf("compare the journal with its anchor: %w", err)
	}
	below.End = end.Position
	cleared, err := eraCites(ctx, j, shard, below.Digest)
	if err != nil {
		return fmt.Errorf("look for an era that cites the anchor: %w", err)
	}
	if cleared {
		return nil
	}
	return below
}

// eraCites looks for an era.opened fact that cites an anchor. Frames that
// cannot be read are passed over: they open no era.
func eraCites(ctx context.Context, j journal.Journal, shard uint32, digest string) (bool, error) {
	var after journal.Position
	for {
		records, err := j.Read(ctx, shard, after, 64)
		var gap *journal.GapError
		if errors.As(err, &gap) && gap.Next > after+1 {
			after = gap.Next - 1
			continue
		}
		if err != nil || len(records) == 0 {
			return false, err
		}
		for _, r := range records {
			after = r.Position
			f, err := journal.DecodeFrame(r.Bytes)
			if err != nil || len(f.Check()) != 0 {
				continue
			}
			for i := range f.Entries {
				if body, ok := EraOf(&f.Entries[i]); ok && body.AnchorDigest == digest {
					return true, nil
				}
			}
		}
	}
}

// EraOf is the body of an era.opened fact; false for every other fact.
func EraOf(e *journal.Entry) (epro.EraOpened, bool) {
	env, err := epro.DecodeEnvelope(e.Envelope)
	if err != nil || env.Kind != epro.KindEraOpened || e.Erased {
		return epro.EraOpened{}, false
	}
	var body epro.EraOpened
	if json.Unmarshal(e.Body, &body) != nil {
		return epro.EraOpened{}, false
	}
	return body, true
}
