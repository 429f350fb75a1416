package intake

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
)

// Outcome is what became of one fact of a bulk.
type Outcome struct {
	Committed Committed
	Err       error // as Submit's; nil when durable
}

// SubmitAll takes many facts and returns an outcome for each, in order, when
// all are known. Facts that lie in one frame lie there side by side, as far as
// other callers let them. Where one fact would be refused for want of room,
// this waits for the next frame, until ctx is done: the facts not taken by then
// are refused, those taken but not durable are unknown.
//
// Bulks fill at most half of a frame, so a phone beside them always finds room.
func (in *Intake) SubmitAll(ctx context.Context, facts []*epro.Fact) []Outcome {
	if in.tracer != nil {
		if span := in.waiting(ctx, len(facts)); span != nil {
			out := in.submitAll(ctx, facts)
			waited(span, out...)
			return out
		}
	}
	return in.submitAll(ctx, facts)
}

func (in *Intake) submitAll(ctx context.Context, facts []*epro.Fact) []Outcome {
	out := make([]Outcome, len(facts))
	tickets := make([]ticket, len(facts))
	for i, f := range facts {
		now := in.now()
		if err := in.checkRate(f, now); err != nil {
			out[i].Err = err
			continue
		}
		s, err := in.seal(f, now)
		if err == nil {
			tickets[i], err = in.joinBulk(ctx, &s)
		}
		in.joined(f, tickets[i], err)
		out[i].Err = err
	}
	in.kick()
	for i := range facts {
		if out[i].Err == nil {
			out[i].Committed, out[i].Err = in.awaitPaid(ctx, facts[i], tickets[i])
		}
	}
	return out
}

// joinBulk joins the open pool, waiting for a new one while it is half full.
func (in *Intake) joinBulk(ctx context.Context, s *sealed) (ticket, error) {
	for {
		in.mu.Lock()
		p := in.open
		busy := p.bulk >= in.cfg.MaxFacts/2 || p.bytes+s.bytes > in.maxRoom/2
		if !busy || in.closed != nil {
			t, err := in.join(s, in.now(), in.cfg.MaxFacts)
			if err == nil && !t.remembered {
				p.bulk++
			}
			if !roomLater(err) {
				in.mu.Unlock()
				return t, err
			}
		}
		in.mu.Unlock()
		in.kick()
		select {
		case <-p.rotated:
		case <-ctx.Done():
			return ticket{}, fmt.Errorf("%w: the request's time was over", ErrNotTaken)
		}
	}
}

// roomLater says whether a refusal ends with the frame that is filling.
func roomLater(err error) bool {
	var r *RefusedError
	return errors.As(err, &r) && (r.Reason == "frame-full" || r.Reason == "trial-share")
}
