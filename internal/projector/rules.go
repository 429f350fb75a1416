package projector

import (
	"slices"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

// RuleSet is the only rule set so far. Every one that was ever shipped stays in
// the binary: the journal names the one that holds.
const RuleSet = "2026.1"

// qolName saves making the usual instrument's name for every report.
var qolName = registry.InstrumentName(epro.QoLInstrument, epro.QoLVersion)

func instrumentOf(r *epro.Report) string {
	if r.Instrument == epro.QoLInstrument && r.InstrumentVersion == epro.QoLVersion {
		return qolName
	}
	return registry.InstrumentName(r.Instrument, r.InstrumentVersion)
}

// quarantineReasons are all the reasons for which a report is set aside, in
// the order of epro; none for most. trial is nil when there is no such trial.
// Rule set 2026.1.
func quarantineReasons(f *fact, instrument string, trial *store.Trial, s *store.Subject) []epro.QuarantineReason {
	var list []epro.QuarantineReason
	add := func(yes bool, r epro.QuarantineReason) {
		if yes {
			list = append(list, r)
		}
	}
	add(!f.readable && !f.Erased, epro.ReasonMalformed)
	add(trial == nil || !trial.Status.Open(), epro.ReasonTrialNotOpen)
	add(!s.Known, epro.ReasonNotEnrolled)
	add(s.Known && s.Enrollment.Status == epro.Withdrawn, epro.ReasonWithdrawn)
	// A relay's token has epochs of its own.
	add(f.Actor.Type == epro.ActorParticipant && f.Epoch < s.Enrollment.MinEpoch, epro.ReasonEpochRevoked)
	add(s.Known && !f.Actor.Covers(s.Enrollment.SiteID), epro.ReasonForeignSite)
	add(f.readable && (trial == nil || !slices.Contains(trial.Instruments, instrument)), epro.ReasonUnknownInstrument)
	add(f.Flags&epro.FlagClockApart == 0 && f.OccurredAt.After(f.ReceivedAt.Add(epro.MaxClockAhead)), epro.ReasonClockAhead)
	return list
}
