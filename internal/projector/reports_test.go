package projector_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

type edit = func(*epro.Fact, map[string]any)

// one projects the reports of a trial and returns them in order.
func reports(t *testing.T, s store.Store, trial string) []store.Report {
	t.Helper()
	var list []store.Report
	if err := s.EachReport(t.Context(), trial, store.ReportFilter{}, func(r *store.Report) error {
		list = append(list, *r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func wantBooks(t *testing.T, s store.Store, want store.Books) {
	t.Helper()
	got, err := s.Books(t.Context(), want.TrialID)
	if err != nil || got != want {
		t.Errorf("books are %+v, %v; want %+v", got, err, want)
	}
}

func TestQuarantineReasons(t *testing.T) {
	type setup = func(w *world)
	status := func(to epro.TrialStatus, expect uint64) setup {
		return func(w *world) {
			w.command(epro.KindTrialStatusChanged, epro.TrialStatusChanged{TrialID: "T001", Status: to, Reason: "because", Expect: expect})
		}
	}
	withdraw := func(w *world) {
		w.command(epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{TrialID: "T001", PatientID: "P-1", Reason: "asked to", Expect: 1})
	}
	revoke := func(epoch uint32, expect uint64) setup {
		return func(w *world) {
			w.command(epro.KindTokensRevoked, epro.TokensRevoked{TrialID: "T001", PatientID: "P-1", MinEpoch: epoch, Reason: "phone lost", Expect: expect})
		}
	}
	ahead := func(d time.Duration) edit {
		return func(f *epro.Fact, _ map[string]any) { f.OccurredAt = f.ReceivedAt.Add(d).In(f.OccurredAt.Location()) }
	}
	relay := func(f *epro.Fact, _ map[string]any) { f.Actor = epro.Actor{Type: epro.ActorRelay, ID: "relay-1"} }
	sites := func(list string) edit { return func(f *epro.Fact, _ map[string]any) { f.Actor.Device = list } }
	set := func(field string, v any) edit {
		return func(_ *epro.Fact, m map[string]any) { m[field] = v }
	}
	tests := []struct {
		name    string
		trial   string // T001 when empty
		patient string // P-1 when empty
		before  []setup
		edits   []edit
		want    []epro.QuarantineReason
	}{
		{name: "good"},
		{name: "body is not JSON", edits: []edit{func(f *epro.Fact, _ map[string]any) { f.Body = []byte("{") }}, want: []epro.QuarantineReason{epro.ReasonMalformed}},
		{name: "score of another instrument", edits: []edit{set("qolScore", 11)}, want: []epro.QuarantineReason{epro.ReasonMalformed}},
		{name: "body names another patient", edits: []edit{set("patientId", "P-2")}, want: []epro.QuarantineReason{epro.ReasonMalformed}},
		{name: "body names another trial", edits: []edit{set("trialId", "T002")}, want: []epro.QuarantineReason{epro.ReasonMalformed}},
		{name: "body names another report", edits: []edit{set("reportId", "018f4e6a-7c1b-7d3e-9a52-3f6b8c1d2e4f")}, want: []epro.QuarantineReason{epro.ReasonMalformed}},
		{name: "trial suspended", before: []setup{status(epro.TrialSuspended, 2)}, want: []epro.QuarantineReason{epro.ReasonTrialNotOpen}},
		{name: "trial suspended and open again", before: []setup{status(epro.TrialSuspended, 2), status(epro.TrialActive, 3)}},
		{name: "trial unknown", trial: "T009", want: []epro.QuarantineReason{epro.ReasonTrialNotOpen, epro.ReasonNotEnrolled, epro.ReasonUnknownInstrument}},
		{name: "not enrolled", patient: "P-99", want: []epro.QuarantineReason{epro.ReasonNotEnrolled}},
		{name: "withdrawn", before: []setup{withdraw}, want: []epro.QuarantineReason{epro.ReasonWithdrawn}},
		{name: "enrolled again", before: []setup{withdraw, func(w *world) {
			w.command(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: "T001", SiteID: "S01", PatientID: "P-1", Expect: 2})
		}}},
		{name: "token revoked", before: []setup{revoke(2, 1)}, want: []epro.QuarantineReason{epro.ReasonEpochRevoked}},
		{name: "token of the new epoch", before: []setup{revoke(2, 1)}, edits: []edit{func(f *epro.Fact, _ map[string]any) { f.Epoch = 2 }}},
		{name: "epoch of a relay is another", before: []setup{revoke(2, 1)}, edits: []edit{relay}},
		{name: "relay of the participant's site", edits: []edit{relay, sites("S01,S02")}},
		{name: "relay of another site", edits: []edit{relay, sites("S02,S03")}, want: []epro.QuarantineReason{epro.ReasonForeignSite}},
		{name: "a phone's name is no site", edits: []edit{sites("S02")}},
		{name: "instrument unknown", edits: []edit{set("instrument", "eq5d@2"), set("answers", map[string]any{"a": 1})}, want: []epro.QuarantineReason{epro.ReasonUnknownInstrument}},
		{name: "instrument version unknown", edits: []edit{set("instrument", "qol@2")}, want: []epro.QuarantineReason{epro.ReasonUnknownInstrument}},
		{name: "clock 10 minutes ahead", edits: []edit{ahead(10 * time.Minute)}},
		{name: "clock more than 10 minutes ahead", edits: []edit{ahead(10*time.Minute + 1)}, want: []epro.QuarantineReason{epro.ReasonClockAhead}},
		{name: "clocks apart", edits: []edit{ahead(time.Hour), func(f *epro.Fact, _ map[string]any) { f.Flags = epro.FlagClockApart }}},
		{name: "all at once, in order", before: []setup{revoke(5, 1), func(w *world) {
			w.command(epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{TrialID: "T001", PatientID: "P-1", Reason: "asked to", Expect: 2})
		}, status(epro.TrialTerminated, 2)}, edits: []edit{ahead(time.Hour), set("instrument", "qol@9")}, want: []epro.QuarantineReason{
			epro.ReasonTrialNotOpen, epro.ReasonWithdrawn, epro.ReasonEpochRevoked, epro.ReasonUnknownInstrument, epro.ReasonClockAhead,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, s := newWorld(t), openStore(t)
			w.seed(3)
			for _, b := range test.before {
				b(w)
			}
			trial, patient := "T001", "P-1"
			if test.trial != "" {
				trial = test.trial
			}
			if test.patient != "" {
				patient = test.patient
			}
			w.tell(w.report(trial, patient, w.newID(), 7, test.edits...))
			w.tell(w.report("T001", "P-3", w.newID(), 0)) // a neighbour is not hurt
			w.commit()
			w.mustProject(s)
			r := reports(t, s, trial)[0]
			want := epro.Recorded
			if test.want != nil {
				want = epro.Quarantined
			}
			if r.Disposition != want || !slices.Equal(r.Reasons, test.want) {
				t.Errorf("disposition %s %v, want %s %v", r.Disposition, r.Reasons, want, test.want)
			}
			all := reports(t, s, "T001")
			last := all[len(all)-1]
			wantNeighbour := epro.Recorded
			if len(test.before) > 0 && slices.Contains(test.want, epro.ReasonTrialNotOpen) {
				wantNeighbour = epro.Quarantined
			}
			if last.PatientID != "P-3" || last.Disposition != wantNeighbour || last.Score == nil || *last.Score != 0 {
				t.Errorf("the neighbour is %+v", last)
			}
		})
	}
}

func TestSameReportIDAgain(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.seed(2)
	id, late := w.newID(), w.newID()
	score := func(n int) edit { return func(_ *epro.Fact, m map[string]any) { m["qolScore"] = n } }
	first := w.tell(w.report("T001", "P-1", id, 5))
	same := func(f *epro.Fact, m map[string]any) {
		f.OccurredAt = first.OccurredAt
		m["timestamp"] = first.OccurredAt.UTC().Format(time.RFC3339) // the same instant, spelled otherwise
	}
	w.tell(w.report("T001", "P-1", id, 5, same))           // a repeat within the frame
	w.commit()                                             //
	w.tell(w.report("T001", "P-1", id, 5, same))           // a repeat later
	w.tell(w.report("T001", "P-1", id, 5, same, score(6))) // other content: version 2
	w.tell(w.report("T001", "P-1", id, 5, same, score(6))) // a repeat of version 2
	w.tell(w.report("T001", "P-2", id, 5, same))           // another participant may use the id
	w.commit()
	w.restart()
	w.tell(w.report("T001", "P-1", id, 5, same)) // a repeat of version 1, from another process
	// Content that is set aside takes a version too, and is repeated as a duplicate, not set aside again.
	fast := func(f *epro.Fact, _ map[string]any) { f.OccurredAt = start.Add(48 * time.Hour) }
	w.tell(w.report("T001", "P-1", id, 9, fast))
	w.tell(w.report("T001", "P-1", id, 9, fast))
	// The first content under an id is set aside, the second is a conflict all the same.
	w.tell(w.report("T001", "P-2", late, 9, fast))
	w.tell(w.report("T001", "P-2", late, 8))
	w.commit()
	w.mustProject(s)

	type row struct {
		patient     string
		version     int
		disposition epro.Disposition
	}
	want := []row{
		{"P-1", 1, epro.Recorded},
		{"P-1", 2, epro.Conflict},
		{"P-2", 1, epro.Recorded},
		{"P-1", 3, epro.Quarantined},
		{"P-2", 1, epro.Quarantined},
		{"P-2", 2, epro.Conflict},
	}
	var got []row
	for _, r := range reports(t, s, "T001") {
		got = append(got, row{r.PatientID, r.Version, r.Disposition})
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed\n%v, want\n%v", got, want)
	}
	wantBooks(t, s, store.Books{TrialID: "T001", Recorded: 2, Conflicts: 2, Quarantined: 2, Duplicates: 5})
	versions, err := s.ReportVersions(t.Context(), "T001", "P-1", id)
	if err != nil || len(versions) != 3 || versions[1].Score == nil || *versions[1].Score != 6 {
		t.Errorf("versions %+v, %v", versions, err)
	}
	audit, _, err := s.Audit(t.Context(), "T001", store.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]int{}
	for i, a := range audit {
		if a.Kind == epro.KindReport {
			outcomes[a.Outcome]++
		}
		if i > 0 && (audit[i-1].Ref.Position > a.Ref.Position || audit[i-1].Ref.Position == a.Ref.Position && audit[i-1].Ref.Index >= a.Ref.Index) {
			t.Errorf("audit entry %d is out of order", i)
		}
	}
	if outcomes["duplicate"] != 5 || outcomes["recorded"] != 2 || outcomes["conflict"] != 2 || outcomes["quarantined"] != 2 {
		t.Errorf("the audit tells %v", outcomes)
	}
}

func TestReportRowIsWhatWasSent(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.seed(1)
	f := w.tell(w.report("T001", "P-1", w.newID(), 0, func(f *epro.Fact, m map[string]any) {
		f.OccurredAt = time.Date(2, 1, 1, 0, 0, 0, 123456789, time.FixedZone("", -(3*60+30)*60))
		f.ReceivedAt = f.ReceivedAt.Add(987654321)
		f.Flags = epro.FlagClockApart
		m["comments"] = ""
	}))
	w.commit()
	w.mustProject(s)
	r := reports(t, s, "T001")[0]
	if r.Score == nil || *r.Score != 0 || r.Comments == nil || *r.Comments != "" || r.Instrument != "qol@1" || r.SiteID != "S01" || !r.ClockApart {
		t.Errorf("content is %+v", r)
	}
	if !r.CompletedAt.Equal(f.OccurredAt) || r.CompletedAt.Format(time.RFC3339Nano) != f.OccurredAt.Format(time.RFC3339Nano) {
		t.Errorf("completed %v, want %v", r.CompletedAt, f.OccurredAt)
	}
	if !r.ReceivedAt.Equal(f.ReceivedAt) || !r.CommittedAt.Equal(w.now) || r.Actor != f.Actor {
		t.Errorf("received %v, committed %v, actor %v", r.ReceivedAt, r.CommittedAt, r.Actor)
	}
}
