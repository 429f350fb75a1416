package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// PatientTrials are the trials that a participant is enrolled in now, by trial
// id. One whom nobody knows is in none. Ids mean the same person only within a
// trial: what is listed is where the id is enrolled, and no more is concluded.
func PatientTrials(ctx context.Context, r store.Reader, patient string) ([]store.Trial, error) {
	var found []store.Trial
	page := store.Page{Limit: 1000}
	for {
		trials, next, err := r.Trials(ctx, page)
		if err != nil {
			return nil, fmt.Errorf("list the trials of a participant: %w", err)
		}
		for _, t := range trials {
			e, err := r.Participant(ctx, t.ID, patient)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, fmt.Errorf("list the trials of a participant: %w", err)
			}
			if err == nil && e.Status == epro.Enrolled {
				found = append(found, t)
			}
		}
		if next == "" {
			return found, nil
		}
		page.After = next
	}
}

// Frames reads frames back. Every journal.Journal is one.
type Frames interface {
	Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error)
}

// CommandEnvelope reads the envelope of the fact that an outcome is about: who
// gave the command, and what it was.
func CommandEnvelope(ctx context.Context, r store.Reader, frames Frames, o store.Outcome) (epro.Envelope, error) {
	shard := uint32(0)
	if o.TrialID != "" {
		t, err := r.Trial(ctx, o.TrialID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return epro.Envelope{}, err
		}
		shard = t.Shard
	}
	at := o.Ref.Position
	if at == 0 {
		return epro.Envelope{}, errors.New("read the fact of a command: the tables name no frame for it: run `tidegate rebuild`")
	}
	records, err := frames.Read(ctx, shard, at-1, 1)
	if err != nil {
		return epro.Envelope{}, fmt.Errorf("read frame %d: %w", at, err)
	}
	if len(records) == 0 || records[0].Position != at {
		return epro.Envelope{}, fmt.Errorf("read frame %d: the journal does not have it: run `tidegate verify`", at)
	}
	frame, err := journal.DecodeFrame(records[0].Bytes)
	if err != nil {
		return epro.Envelope{}, fmt.Errorf("read frame %d: %w", at, err)
	}
	if int(o.Ref.Index) >= len(frame.Entries) {
		return epro.Envelope{}, errors.New("the tables name a fact that its frame does not have: run `tidegate rebuild`")
	}
	return epro.DecodeEnvelope(frame.Entries[o.Ref.Index].Envelope)
}
