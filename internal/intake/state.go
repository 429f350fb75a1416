package intake

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// counters are what metrics and status read. All are totals but the last two.
type counters struct {
	facts, frames, remembered, unknown, notTaken, tooFast atomic.Uint64
	frameFull, commitSlow, diskLow, trialShare            atomic.Uint64
	unresolved                                            atomic.Bool
	commitNanos                                           atomic.Int64
}

func (c *counters) refused(err error) {
	var r *RefusedError
	if !errors.As(err, &r) {
		return
	}
	switch r.Reason {
	case "frame-full":
		c.frameFull.Add(1)
	case "commit-slow":
		c.commitSlow.Add(1)
	case "disk-low":
		c.diskLow.Add(1)
	case "trial-share":
		c.trialShare.Add(1)
	}
}

// Stats is a snapshot for metrics and status.
type Stats struct {
	Facts, Frames uint64 // made durable
	Remembered    uint64 // retries that got the original receipt
	Unknown       uint64 // callers that left, or were sent away, before the outcome was known
	NotTaken      uint64 // facts the journal surely did not keep
	TooFast       uint64
	FrameFull     uint64
	CommitSlow    uint64
	DiskLow       uint64
	TrialShare    uint64
	Open          int           // facts in the frame that fills
	Committing    int           // facts in the frame that is being made durable
	Oldest        time.Duration // age of the oldest waiter
	LastCommit    time.Duration
	Unresolved    bool // a frame's outcome is unknown right now
	LowDisk       bool // right now nothing is taken for want of disk space
	Stopped       bool
}

// Stats returns a snapshot.
func (in *Intake) Stats() Stats {
	c := &in.stats
	s := Stats{
		Facts: c.facts.Load(), Frames: c.frames.Load(), Remembered: c.remembered.Load(), Unknown: c.unknown.Load(),
		NotTaken: c.notTaken.Load(), TooFast: c.tooFast.Load(), FrameFull: c.frameFull.Load(), CommitSlow: c.commitSlow.Load(),
		DiskLow: c.diskLow.Load(), TrialShare: c.trialShare.Load(), LastCommit: time.Duration(c.commitNanos.Load()),
		Unresolved: c.unresolved.Load(), LowDisk: in.diskLow.Load(),
	}
	now := in.now()
	in.mu.Lock()
	defer in.mu.Unlock()
	s.Open = len(in.open.entries)
	switch {
	case in.committing != nil:
		s.Committing = len(in.committing.entries)
		s.Oldest = now.Sub(in.committing.opened)
	case s.Open > 0:
		s.Oldest = now.Sub(in.open.opened)
	}
	s.Stopped = in.closed != nil
	return s
}

// diskInterval is how often free space is looked at: a full disk at 100 MB/s
// of journal is a floor of 256 MiB away.
const diskInterval = 250 * time.Millisecond

func (in *Intake) watchDisk(ctx context.Context, free func() (uint64, error)) {
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			in.checkDisk(free)
		}
	}
}

func (in *Intake) checkDisk(free func() (uint64, error)) {
	n, err := free()
	low := err == nil && n < in.cfg.DiskFloor
	if in.diskLow.Swap(low) == low {
		return
	}
	if low {
		in.log.Error("the disk is nearly full: reports are refused until there is room", "freeBytes", n, "floorBytes", in.cfg.DiskFloor)
	} else {
		in.log.Info("the disk has room again: reports are taken", "freeBytes", n)
	}
}
