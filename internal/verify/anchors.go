package verify

import (
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
)

// anchorCheck compares one anchor with the journal as the walk passes its place.
type anchorCheck struct {
	name    string
	digest  string
	c       receipt.Checkpoint
	reached bool   // the walk came to the anchor's size
	fault   string // why the journal is not what it saw; "" if it is
	at      place
}

// openAnchors checks the signatures. One that is not signed is a finding and
// not compared: anybody could have written it.
func (a *audit) openAnchors() {
	for _, in := range a.in.Anchors {
		c, err := a.in.Keys.OpenCheckpoint(in.Signed)
		if err != nil {
			a.general("anchor", "anchor %s: %v", in.Name, err)
			continue
		}
		a.anchors = append(a.anchors, &anchorCheck{name: in.Name, digest: receipt.AnchorDigest(in.Signed), c: c})
	}
}

// frame is called behind every frame.
func (k *anchorCheck) frame(w *shardWalk, at place, hash epro.Digest) {
	if k.c.Shard != w.shard || k.reached || k.c.Frames > w.frames {
		return
	}
	k.reached, k.at = true, at
	switch {
	case k.c.Frames != w.frames:
		k.fault = "the last frame it saw is gone"
	case at.position != k.c.Position:
		k.fault = "the frames up to it were at other positions"
	case hash != k.c.Header:
		k.fault = "another frame lies in the place of the last one it saw"
	case w.holes:
		k.fault = "frames that it saw are missing or cannot be read"
	case epro.Digest(w.tree.root()) != k.c.Tree:
		k.fault = "frames that it saw were changed, taken away or moved: the tree of their headers is another"
	}
}

// closeAnchors judges, now that the eras are known.
func (a *audit) closeAnchors() {
	for _, k := range a.anchors {
		if !k.reached {
			k.at = place{k.c.Shard, a.ends[k.c.Shard], -1, nil}
			k.fault = "the journal's end is missing"
		}
		if k.fault == "" {
			a.res.AnchorsHeld++
			continue
		}
		if era, cleared := a.eras[k.digest]; cleared {
			a.res.note("anchor %s saw %d frames that the journal no longer has as they were; era %d accepts the gap", k.name, k.c.Frames, era)
			continue
		}
		a.find(k.at, "anchor", "anchor %s of %s (%d frames up to position %d; the journal has %d up to %d): %s",
			k.name, k.c.Time.UTC().Format("2006-01-02T15:04:05Z"), k.c.Frames, k.c.Position, a.shards[k.c.Shard], a.ends[k.c.Shard], k.fault)
	}
}
