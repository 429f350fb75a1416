package app

import (
	"context"
	"io"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/vault"
)

// lateStore are tables that may not be there yet. Every reading call is bounded
// in time, and so is a transaction, more generously.
type lateStore struct{ *late[store.Store] }

var _ store.Store = lateStore{}

// Cursor implements [store.Reader].
func (s lateStore) Cursor(ctx context.Context, shard uint32) (store.Cursor, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) (store.Cursor, error) { return v.Cursor(ctx, shard) })
}

// Trials implements [store.Reader].
func (s lateStore) Trials(ctx context.Context, p store.Page) ([]store.Trial, string, error) {
	return list(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.Trial, string, error) { return v.Trials(ctx, p) })
}

// Trial implements [store.Reader].
func (s lateStore) Trial(ctx context.Context, trial string) (store.Trial, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) (store.Trial, error) { return v.Trial(ctx, trial) })
}

// Sites implements [store.Reader].
func (s lateStore) Sites(ctx context.Context, trial string, p store.Page) ([]store.Site, string, error) {
	return list(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.Site, string, error) { return v.Sites(ctx, trial, p) })
}

// Participants implements [store.Reader].
func (s lateStore) Participants(ctx context.Context, trial string, sites []string, p store.Page) ([]store.Enrollment, string, error) {
	return list(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.Enrollment, string, error) {
		return v.Participants(ctx, trial, sites, p)
	})
}

// Participant implements [store.Reader].
func (s lateStore) Participant(ctx context.Context, trial, patient string) (store.Enrollment, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) (store.Enrollment, error) {
		return v.Participant(ctx, trial, patient)
	})
}

// Staff implements [store.Reader].
func (s lateStore) Staff(ctx context.Context, id string) (store.Staff, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) (store.Staff, error) { return v.Staff(ctx, id) })
}

// StaffList implements [store.Reader].
func (s lateStore) StaffList(ctx context.Context, p store.Page) ([]store.Staff, string, error) {
	return list(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.Staff, string, error) { return v.StaffList(ctx, p) })
}

// Reports implements [store.Reader].
func (s lateStore) Reports(ctx context.Context, trial string, f store.ReportFilter, p store.Page) ([]store.Report, string, error) {
	return list(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.Report, string, error) {
		return v.Reports(ctx, trial, f, p)
	})
}

// EachReport implements [store.Reader]. The bound is on the time between two
// reports: a stream may take as long as it moves.
func (s lateStore) EachReport(ctx context.Context, trial string, f store.ReportFilter, fn func(*store.Report) error) error {
	v, err := s.get()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(s.limit, func() { cancel(context.DeadlineExceeded) })
	defer idle.Stop()
	return v.EachReport(ctx, trial, f, func(r *store.Report) error {
		idle.Stop() // whoever takes the report may be slow, and bounds that itself
		err := fn(r)
		idle.Reset(s.limit)
		return err
	})
}

// OwnReports implements [store.Reader].
func (s lateStore) OwnReports(ctx context.Context, trial, patient string, p store.Page) ([]store.Report, string, error) {
	return list(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.Report, string, error) {
		return v.OwnReports(ctx, trial, patient, p)
	})
}

// ReportVersions implements [store.Reader].
func (s lateStore) ReportVersions(ctx context.Context, trial, patient string, id epro.UUID) ([]store.Report, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.Report, error) {
		return v.ReportVersions(ctx, trial, patient, id)
	})
}

// Books implements [store.Reader].
func (s lateStore) Books(ctx context.Context, trial string) (store.Books, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) (store.Books, error) { return v.Books(ctx, trial) })
}

// Outcome implements [store.Reader].
func (s lateStore) Outcome(ctx context.Context, command epro.UUID) (store.Outcome, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) (store.Outcome, error) { return v.Outcome(ctx, command) })
}

// Audit implements [store.Reader].
func (s lateStore) Audit(ctx context.Context, trial string, p store.Page) ([]store.AuditEntry, string, error) {
	return list(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.AuditEntry, string, error) {
		return v.Audit(ctx, trial, p)
	})
}

// Keys implements [store.Reader].
func (s lateStore) Keys(ctx context.Context) ([]store.KeyFact, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.KeyFact, error) { return v.Keys(ctx) })
}

// applyLimit bounds a transaction of some 20,000 facts: over a connection that
// died unnoticed it would not end.
const applyLimit = time.Minute

// Apply implements [store.Store].
func (s lateStore) Apply(ctx context.Context, shard uint32, from store.Cursor, fn func(store.Tx) (store.Cursor, error)) error {
	v, err := s.get()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	return v.Apply(ctx, shard, from, fn)
}

// LastFrame implements [store.Store].
func (s lateStore) LastFrame(ctx context.Context, shard uint32) (store.FrameRow, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) (store.FrameRow, error) { return v.LastFrame(ctx, shard) })
}

// TreeHashes implements [store.Store].
func (s lateStore) TreeHashes(ctx context.Context, shard uint32, indexes []int64) ([]epro.Digest, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) ([]epro.Digest, error) {
		return v.TreeHashes(ctx, shard, indexes)
	})
}

// TrialBooks implements [store.Store].
func (s lateStore) TrialBooks(ctx context.Context) ([]store.Books, error) {
	return call(ctx, s.late, func(ctx context.Context, v store.Store) ([]store.Books, error) { return v.TrialBooks(ctx) })
}

// Dump implements [store.Store].
func (s lateStore) Dump(ctx context.Context, w io.Writer) error {
	v, err := s.get()
	if err != nil {
		return err
	}
	return v.Dump(ctx, w)
}

// Hash implements [store.Store].
func (s lateStore) Hash(ctx context.Context) (epro.Digest, error) {
	v, err := s.get()
	if err != nil {
		return epro.Digest{}, err
	}
	return v.Hash(ctx)
}

// HashAt implements [store.Store].
func (s lateStore) HashAt(ctx context.Context, shard uint32) (epro.Digest, store.Cursor, error) {
	v, err := s.get()
	if err != nil {
		return epro.Digest{}, store.Cursor{}, err
	}
	return v.HashAt(ctx, shard)
}

// lateCredentials are those of a vault that may not be there yet.
type lateCredentials struct{ *late[vault.Vault] }

// Credential implements auth.Credentials.
func (c lateCredentials) Credential(ctx context.Context, id string) (vault.Credential, error) {
	return call(ctx, c.late, func(ctx context.Context, v vault.Vault) (vault.Credential, error) { return v.Credential(ctx, id) })
}

// boundedJournal bounds the reading calls of a journal behind a network, so that
// one that hangs hangs no screen and no projector. Append has no bound here: a
// phone's wait has one, and the adapter has its own.
type boundedJournal struct {
	journal.Journal
	limit time.Duration
}

// Read implements [journal.Journal].
func (b boundedJournal) Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	return b.Journal.Read(ctx, shard, after, limit)
}

// End implements [journal.Journal].
func (b boundedJournal) End(ctx context.Context, shard uint32) (journal.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	return b.Journal.End(ctx, shard)
}

// Wait implements [journal.Journal]. It returns early, which it may, when the
// journal was silent for long: a connection that died unnoticed would be waited
// on for ever.
func (b boundedJournal) Wait(ctx context.Context, shard uint32, after journal.Position) error {
	within, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	err := b.Journal.Wait(within, shard, after)
	if within.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}
