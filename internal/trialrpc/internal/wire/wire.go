// Package wire turns rows of the tables into messages of the Trial service and
// back.
package wire

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

func at(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// Each turns a list.
func Each[A, B any](list []A, turn func(*A) B) []B {
	out := make([]B, len(list))
	for i := range list {
		out[i] = turn(&list[i])
	}
	return out
}

// Trial is a trial's message.
func Trial(t *store.Trial) *trialv1.TrialRecord {
	return &trialv1.TrialRecord{
		TrialId: t.ID, Name: t.Name, Status: string(t.Status), Version: t.Version, Shard: t.Shard, Instruments: t.Instruments, CreatedAt: at(t.CreatedAt),
	}
}

// Info is a trial's message of the original contract.
func Info(t *store.Trial) *trialv1.TrialInfo {
	return &trialv1.TrialInfo{TrialId: t.ID, TrialName: t.Name, Status: string(t.Status)}
}

// Site is a site's message.
func Site(s *store.Site) *trialv1.SiteRecord {
	return &trialv1.SiteRecord{TrialId: s.TrialID, SiteId: s.ID, Name: s.Name, CreatedAt: at(s.CreatedAt)}
}

// Enrollment is an enrolment's message.
func Enrollment(e *store.Enrollment) *trialv1.Enrollment {
	return &trialv1.Enrollment{
		TrialId: e.TrialID, PatientId: e.PatientID, SiteId: e.SiteID, Status: string(e.Status), MinEpoch: e.MinEpoch, Version: e.Version,
		EnrolledAt: at(e.EnrolledAt), WithdrawnAt: at(e.WithdrawnAt),
	}
}

// Change is the message of a change of the directory.
func Change(c *directory.Change) *trialv1.DirectoryChange {
	return &trialv1.DirectoryChange{
		Version: c.Version, Snapshot: c.Snapshot, Done: c.Done,
		Trials: Each(c.Trials, Trial), Sites: Each(c.Sites, Site), Enrollments: Each(c.Enrollments, Enrollment),
	}
}

// ChangeOf reads the message of a change of the directory.
func ChangeOf(m *trialv1.DirectoryChange) directory.Change {
	return directory.Change{
		Version: m.GetVersion(), Snapshot: m.GetSnapshot(), Done: m.GetDone(),
		Trials: Each(m.GetTrials(), func(t **trialv1.TrialRecord) store.Trial {
			return store.Trial{
				ID: (*t).GetTrialId(), Name: (*t).GetName(), Status: epro.TrialStatus((*t).GetStatus()), Shard: (*t).GetShard(),
				Version: (*t).GetVersion(), Instruments: (*t).GetInstruments(), CreatedAt: timeOf((*t).GetCreatedAt()),
			}
		}),
		Sites: Each(m.GetSites(), func(s **trialv1.SiteRecord) store.Site {
			return store.Site{TrialID: (*s).GetTrialId(), ID: (*s).GetSiteId(), Name: (*s).GetName(), CreatedAt: timeOf((*s).GetCreatedAt())}
		}),
		Enrollments: Each(m.GetEnrollments(), func(e **trialv1.Enrollment) store.Enrollment {
			return store.Enrollment{
				TrialID: (*e).GetTrialId(), PatientID: (*e).GetPatientId(), SiteID: (*e).GetSiteId(), Status: epro.EnrollmentStatus((*e).GetStatus()),
				MinEpoch: (*e).GetMinEpoch(), Version: (*e).GetVersion(), EnrolledAt: timeOf((*e).GetEnrolledAt()), WithdrawnAt: timeOf((*e).GetWithdrawnAt()),
			}
		}),
	}
}
