package projector_test

import (
	"slices"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/projector"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

func TestCommandOutcomes(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.seed(2)
	quarantined := w.newID()
	w.tell(w.report("T001", "P-77", quarantined, 3))
	recorded := w.newID()
	w.tell(w.report("T001", "P-1", recorded, 3))
	type step struct {
		name    string
		kind    epro.Kind
		body    any
		code    string // "" for applied
		version uint64
	}
	resolve := func(id epro.UUID, patient string, version int, expect uint64) epro.ReportResolved {
		return epro.ReportResolved{TrialID: "T001", PatientID: patient, ReportID: id, Version: version, Resolution: epro.ResolutionVoid, Reason: "test phone", Expect: expect}
	}
	status := func(to epro.TrialStatus, expect uint64) epro.TrialStatusChanged {
		return epro.TrialStatusChanged{TrialID: "T001", Status: to, Reason: "planned", Expect: expect}
	}
	enrol := func(patient, site string, expect uint64) epro.ParticipantEnrolled {
		return epro.ParticipantEnrolled{TrialID: "T001", SiteID: site, PatientID: patient, Expect: expect}
	}
	withdraw := func(patient string, expect uint64) epro.ParticipantWithdrawn {
		return epro.ParticipantWithdrawn{TrialID: "T001", PatientID: patient, Reason: "moved", Expect: expect}
	}
	revoke := func(epoch uint32, expect uint64) epro.TokensRevoked {
		return epro.TokensRevoked{TrialID: "T001", PatientID: "P-2", MinEpoch: epoch, Reason: "phone lost", Expect: expect}
	}
	role := func(role, trial string) epro.StaffRole {
		return epro.StaffRole{StaffID: "anna", Role: role, TrialID: trial}
	}
	steps := []step{
		{"trial again", epro.KindTrialCreated, epro.TrialCreated{TrialID: "T001", Name: "x", Status: epro.TrialPlanned}, registry.CodeExists, 0},
		{"trial for another shard", epro.KindTrialCreated, epro.TrialCreated{TrialID: "T002", Name: "x", Status: epro.TrialPlanned, Shard: 4}, registry.CodeInvalid, 0},
		{"second trial", epro.KindTrialCreated, epro.TrialCreated{TrialID: "T002", Name: "x", Status: epro.TrialPlanned}, "", 1},
		{"status from an old version", epro.KindTrialStatusChanged, status(epro.TrialActive, 1), registry.CodeConflict, 0},
		{"status", epro.KindTrialStatusChanged, status(epro.TrialActive, 2), "", 3},
		{"two at once: the second", epro.KindTrialStatusChanged, status(epro.TrialSuspended, 2), registry.CodeConflict, 0},
		{"forbidden move", epro.KindTrialStatusChanged, status(epro.TrialPlanned, 3), registry.CodeTransition, 0},
		{"no such trial", epro.KindTrialStatusChanged, epro.TrialStatusChanged{TrialID: "T9", Status: epro.TrialActive, Reason: "x"}, registry.CodeNotFound, 0},
		{"site again", epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: "S01", Name: "x"}, registry.CodeExists, 0},
		{"site without trial", epro.KindSiteCreated, epro.SiteCreated{TrialID: "T9", SiteID: "S01", Name: "x"}, registry.CodeNotFound, 0},
		{"instrument again", epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: "T001", Instrument: "qol", Version: 1}, registry.CodeExists, 0},
		{"unknown instrument", epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: "T001", Instrument: "qol", Version: 2}, registry.CodeNotFound, 0},
		{"enrol again", epro.KindParticipantEnrolled, enrol("P-1", "S01", 0), registry.CodeExists, 0},
		{"enrol the enrolled", epro.KindParticipantEnrolled, enrol("P-1", "S01", 1), registry.CodeTransition, 0},
		{"enrol at no site", epro.KindParticipantEnrolled, enrol("P-5", "S09", 0), registry.CodeNotFound, 0},
		{"enrol the unknown again", epro.KindParticipantEnrolled, enrol("P-5", "S01", 2), registry.CodeNotFound, 0},
		{"withdraw the unknown", epro.KindParticipantWithdrew, withdraw("P-5", 1), registry.CodeNotFound, 0},
		{"withdraw from an old version", epro.KindParticipantWithdrew, withdraw("P-1", 0), registry.CodeConflict, 0},
		{"withdraw", epro.KindParticipantWithdrew, withdraw("P-1", 1), "", 2},
		{"withdraw again", epro.KindParticipantWithdrew, withdraw("P-1", 2), registry.CodeTransition, 0},
		{"take up again from an old version", epro.KindParticipantEnrolled, enrol("P-1", "S01", 1), registry.CodeConflict, 0},
		{"take up again", epro.KindParticipantEnrolled, enrol("P-1", "S01", 2), "", 3},
		{"revoke", epro.KindTokensRevoked, revoke(3, 1), "", 2},
		{"revoke less", epro.KindTokensRevoked, revoke(3, 2), registry.CodeTransition, 0},
		{"resolve what is recorded", epro.KindReportResolved, resolve(recorded, "P-1", 1, 0), registry.CodeTransition, 0},
		{"resolve no version", epro.KindReportResolved, resolve(quarantined, "P-77", 2, 0), registry.CodeNotFound, 0},
		{"resolve another's", epro.KindReportResolved, resolve(quarantined, "P-1", 1, 0), registry.CodeNotFound, 0},
		{"resolve", epro.KindReportResolved, resolve(quarantined, "P-77", 1, 0), "", 1},
		{"resolve at the same time", epro.KindReportResolved, resolve(quarantined, "P-77", 1, 0), registry.CodeConflict, 0},
		{"role for nobody", epro.KindStaffRoleGranted, role("monitor", "T001"), registry.CodeNotFound, 0},
		{"staff", epro.KindStaffAdded, epro.StaffAdded{StaffID: "anna", Name: "Anna"}, "", 1},
		{"staff again", epro.KindStaffAdded, epro.StaffAdded{StaffID: "anna", Name: "Anna"}, registry.CodeExists, 0},
		{"role", epro.KindStaffRoleGranted, role("monitor", "T001"), "", 2},
		{"role again", epro.KindStaffRoleGranted, role("monitor", "T001"), registry.CodeExists, 0},
		{"wider role", epro.KindStaffRoleGranted, role("monitor", ""), "", 3},
		{"role taken", epro.KindStaffRoleRevoked, role("monitor", "T001"), "", 4},
		{"role taken again", epro.KindStaffRoleRevoked, role("monitor", "T001"), registry.CodeNotFound, 0},
		{"staff removed", epro.KindStaffRemoved, epro.StaffRemoved{StaffID: "anna", Reason: "left"}, "", 5},
		{"role for the removed", epro.KindStaffRoleGranted, role("admin", ""), registry.CodeTransition, 0},
		{"removed id again", epro.KindStaffAdded, epro.StaffAdded{StaffID: "anna", Name: "Anna"}, registry.CodeExists, 0},
		{"era out of order", epro.KindEraOpened, epro.EraOpened{Reason: "disk replaced", Era: 3, AnchorDigest: zeros}, registry.CodeConflict, 0},
		{"era", epro.KindEraOpened, epro.EraOpened{Reason: "disk replaced", Era: 2, AnchorDigest: zeros}, "", 2},
		{"trial ends", epro.KindTrialStatusChanged, status(epro.TrialCompleted, 3), "", 4},
		{"ended is ended", epro.KindTrialStatusChanged, status(epro.TrialActive, 4), registry.CodeTransition, 0},
		{"enrol in an ended trial", epro.KindParticipantEnrolled, enrol("P-6", "S01", 0), registry.CodeTransition, 0},
		{"site in an ended trial", epro.KindSiteCreated, epro.SiteCreated{TrialID: "T001", SiteID: "S09", Name: "x"}, registry.CodeTransition, 0},
		{"withdraw from an ended trial", epro.KindParticipantWithdrew, withdraw("P-1", 3), "", 4},
	}
	ids := make([]epro.UUID, len(steps))
	for i, step := range steps {
		ids[i] = w.command(step.kind, step.body)
		if i%3 == 2 {
			w.commit()
		}
	}
	w.commit()
	w.mustProject(s)
	for i, step := range steps {
		o, err := s.Outcome(t.Context(), ids[i])
		if err != nil || o.Code != step.code || o.Applied != (step.code == "") || o.Version != step.version || (o.Reason == "") != o.Applied {
			t.Errorf("%s: %+v, %v", step.name, o, err)
		}
	}
	versions, err := s.ReportVersions(t.Context(), "T001", "P-77", quarantined)
	if err != nil || versions[0].Resolution != epro.ResolutionVoid || versions[0].ResolvedBy != "anna" || versions[0].Disposition != epro.Quarantined || versions[0].ResolvedAt.IsZero() {
		t.Errorf("resolved report is %+v, %v", versions, err)
	}
	if c, err := s.Cursor(t.Context(), 0); err != nil || c.Era != 2 || c.RuleSet != projector.RuleSet || c.TZ != "2026a" {
		t.Errorf("cursor is %+v, %v", c, err)
	}
	staff, err := s.Staff(t.Context(), "anna")
	if err != nil || !staff.Removed || len(staff.Grants) != 0 {
		t.Errorf("staff is %+v, %v", staff, err)
	}
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func TestCommandIDUsedTwice(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.seed(0)
	site := func(name string) epro.Fact {
		f, err := registry.Fact(registry.Command{Kind: epro.KindSiteCreated, ID: epro.UUID{9}, Actor: coordinator, Body: epro.SiteCreated{TrialID: "T001", SiteID: "S02", Name: name}}, w.now)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := w.tell(site("Second"))
	w.commit()
	w.tell(site("Second"))
	w.commit()
	other := w.tell(site("Other"))
	w.commit()
	w.mustProject(s)
	o, err := s.Outcome(t.Context(), epro.UUID{9})
	if err != nil || !o.Applied || o.Meaning != first.Meaning || o.Meaning == other.Meaning {
		t.Errorf("outcome is %+v, %v", o, err)
	}
	audit, _, err := s.Audit(t.Context(), "T001", store.Page{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range audit[len(audit)-3:] {
		got = append(got, a.Outcome)
	}
	want := []string{"applied", "repeated: the first outcome stands", "rejected: The command's id was used for another command before."}
	if !slices.Equal(got, want) {
		t.Errorf("audit tells %q", got)
	}
	if sites, _, _ := s.Sites(t.Context(), "T001", store.Page{Limit: 10}); len(sites) != 2 || sites[1].Name != "Second" {
		t.Errorf("sites are %v", sites)
	}
}

func TestKeysAndSystemFacts(t *testing.T) {
	w, s := newWorld(t), openStore(t)
	w.command(epro.KindKeyAdded, rawJSON(`{"keyId":"a"}`))
	w.command(epro.KindKeyAdded, rawJSON(`{"keyId":"b"}`))
	w.commit()
	w.command(epro.KindKeyRetired, rawJSON(`{"keyId":"a"}`))
	w.commit()
	w.mustProject(s)
	keys, err := s.Keys(t.Context())
	if err != nil || len(keys) != 3 || keys[2].Kind != epro.KindKeyRetired || string(keys[1].Body) != `{"keyId":"b"}` {
		t.Errorf("keys are %v, %v", keys, err)
	}
	audit, _, err := s.Audit(t.Context(), "", store.Page{Limit: 10})
	if err != nil || len(audit) != 3 || audit[2].Summary != "key retired" || audit[2].Outcome != "applied" {
		t.Errorf("audit is %v, %v", audit, err)
	}
}

// TestErasure destroys the words of three reports and rebuilds: the tables are
// the ones that followed the facts, although a rebuild cannot read the words.
func TestErasure(t *testing.T) {
	w := newWorld(t)
	w.seed(1)
	recorded := w.tell(w.report("T001", "P-1", w.newID(), 4))
	strange := w.tell(w.report("T001", "P-1", w.newID(), 4, func(_ *epro.Fact, m map[string]any) { m["instrument"] = "qol@3" }))
	w.tell(recorded) // a duplicate
	w.commit()
	kept := w.tell(w.report("T001", "P-1", w.newID(), 4))
	w.commit()
	erased := func(f epro.Fact, version int, d epro.Disposition, instrument string, reasons ...epro.QuarantineReason) epro.UUID {
		env, err := f.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.command(epro.KindErased, epro.Erased{
			TrialID: "T001", PatientID: "P-1", FactID: f.ID, Leaf: epro.Leaf(env).String(), Version: version,
			Instrument: instrument, Disposition: d, Reasons: reasons, Reason: "consent withdrawn",
		})
	}
	wrong := erased(kept, 1, epro.Quarantined, "qol@1", epro.ReasonWithdrawn)
	erased(recorded, 1, epro.Recorded, "qol@1")
	erased(strange, 1, epro.Quarantined, "qol@3", epro.ReasonUnknownInstrument)
	erased(recorded, 0, epro.Duplicate, "")
	again := erased(recorded, 1, epro.Conflict, "qol@1")
	w.commit()
	followed := openStore(t)
	w.mustProject(followed)

	// Destroy: the frame of the three again, without salts and bodies.
	records, err := w.journal.Read(t.Context(), 0, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	at := len(records) - 3
	f, err := journal.DecodeFrame(records[at].Bytes)
	if err != nil {
		t.Fatal(err)
	}
	leaves := make([]epro.Digest, len(f.Entries))
	for i := range f.Entries {
		f.Entries[i] = journal.Entry{Envelope: f.Entries[i].Envelope, Erased: true}
		leaves[i] = epro.Leaf(f.Entries[i].Envelope)
	}
	sealed, err := journal.Seal(f.Header, f.Entries, leaves)
	if err != nil {
		t.Fatal(err)
	}
	w.journal.Replace(0, records[at].Position, sealed.Bytes)

	for _, id := range []epro.UUID{wrong, again} {
		if o, err := followed.Outcome(t.Context(), id); err != nil || o.Applied {
			t.Errorf("outcome %+v, %v", o, err)
		}
	}
	list := reports(t, followed, "T001")
	if len(list) != 3 || list[2].Erased || list[2].Score == nil || list[0].Score != nil || list[0].Comments != nil || !list[0].Erased || list[0].Disposition != epro.Recorded ||
		list[1].Disposition != epro.Quarantined || list[1].Instrument != "qol@3" {
		t.Errorf("reports are %+v", list)
	}
	rebuilt := openStore(t)
	w.mustProject(rebuilt)
	wantBooks(t, rebuilt, store.Books{TrialID: "T001", Recorded: 2, Quarantined: 1, Duplicates: 1})
	got := reports(t, rebuilt, "T001")
	for i := range got {
		if got[i].Disposition != list[i].Disposition || got[i].Instrument != list[i].Instrument || !slices.Equal(got[i].Reasons, list[i].Reasons) || got[i].Erased != list[i].Erased {
			t.Errorf("rebuilt %+v, followed %+v", got[i], list[i])
		}
	}
	if o, _ := rebuilt.Outcome(t.Context(), again); o.Applied {
		t.Error("a second erasure was applied")
	}
	a, err := followed.Hash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := rebuilt.Hash(t.Context()); err != nil || a != b {
		t.Errorf("a rebuild without the words is not the same (%v)", err)
	}
}
