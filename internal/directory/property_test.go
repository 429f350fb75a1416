package directory_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
)

// flaky is a source whose connection ends after some changes.
type flaky struct {
	directory.Source
	after func() int // changes until the connection ends
}

var errCut = errors.New("the connection was cut")

func (s *flaky) Follow(ctx context.Context, from directory.Version, fn func(directory.Change) error) error {
	left := s.after()
	return s.Source.Follow(ctx, from, func(c directory.Change) error {
		if left--; left < 0 {
			return errCut
		}
		return fn(c)
	})
}

// TestTheDirectoryBecomesTheTables writes random commands and reports, and
// meanwhile cuts the source, stops the projector, and stops or kills the
// directory at random places. At the end it is what the tables are.
func TestTheDirectoryBecomesTheTables(t *testing.T) {
	keys := newKeys(t)
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "") //nolint:usetesting // a folder for each of rapid's runs
		must(r, err)
		w := newWorld(r, dir, keys, nil, nil)
		defer w.close()
		cuts, hold := 0, rapid.IntRange(0, 5).Draw(r, "cuts")
		source := &flaky{Source: w.feed(), after: func() int {
			cuts++
			if cuts > hold {
				return 1 << 30 // in the end it holds
			}
			return cuts * 3 % 7
		}}
		file := filepath.Join(dir, "directory")
		open := func() *running {
			return run(directory.New(directory.Options{Path: file, SaveEvery: 3 * time.Millisecond}), source)
		}
		d := open()
		defer func() { d.stop() }()
		seen := directory.Version(nil)
		projecting := true
		w.command(epro.KindRulesActivated, epro.RulesActivated{RuleSet: "2026.1", TZ: "2026a"})
		trials, people := []string{"T1", "T2"}, []string{"P-1", "P-2"}
		w.trial("T1")
		w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: "T1", SiteID: "S02", Name: "South"})
		w.enrol("T1", "P-1")
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			trial, patient := rapid.SampledFrom(trials).Draw(r, "trial"), rapid.SampledFrom(people).Draw(r, "patient")
			expect := uint64(rapid.IntRange(0, 5).Draw(r, "expect"))
			trialExpect := expect
			if projecting && rapid.IntRange(0, 3).Draw(r, "right") > 0 {
				expect, trialExpect = w.versions(trial, patient)
			}
			switch rapid.IntRange(0, 15).Draw(r, "step") {
			case 0, 1:
				w.trial(trial)
			case 2:
				status := rapid.SampledFrom([]epro.TrialStatus{epro.TrialSuspended, epro.TrialActive}).Draw(r, "status")
				w.command(epro.KindTrialStatusChanged, epro.TrialStatusChanged{TrialID: trial, Status: status, Reason: "x", Expect: trialExpect})
			case 3:
				site := rapid.SampledFrom([]string{"S01", "S02", "S03"}).Draw(r, "site")
				w.command(epro.KindSiteCreated, epro.SiteCreated{TrialID: trial, SiteID: site, Name: "Name of " + site})
			case 4:
				w.command(epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: trial, Instrument: "pain", Version: uint32(expect) + 1})
			case 5, 6, 7:
				site := rapid.SampledFrom([]string{"S01", "S02"}).Draw(r, "at")
				w.command(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: trial, SiteID: site, PatientID: patient, Expect: expect})
			case 8:
				w.command(epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{TrialID: trial, PatientID: patient, Reason: "x", Expect: expect})
			case 9:
				w.command(epro.KindTokensRevoked, epro.TokensRevoked{TrialID: trial, PatientID: patient, MinEpoch: uint32(expect) + 1, Reason: "x", Expect: expect})
			case 10:
				if projecting {
					w.stopProjector()
				} else {
					w.project()
				}
				projecting = !projecting
			case 11: // a stop
				d.stop()
				seen = d.State().Version
				d = open()
			case 12: // a kill: what was last saved is all there is
				kept, err := os.ReadFile(file)
				d.stop()
				if err == nil {
					must(r, os.WriteFile(file, kept, 0o600))
				} else if !errors.Is(err, os.ErrNotExist) {
					r.Fatal(err)
				}
				seen = nil
				d = open()
			default:
				w.report(trial, patient)
			}
			if v := d.State().Version; v != nil {
				if v.Position(0) < seen.Position(0) {
					r.Fatalf("version %v after %v", v, seen)
				}
				seen = v
			}
		}
		if !projecting {
			w.project()
		}
		w.settle(d.Directory)
		w.same(d.Directory)
		d.stop()
		// And a new one, from the file alone.
		last := d.State()
		d = &running{directory.New(directory.Options{Path: file}), func() {}}
		w.same(d.Directory)
		if s := d.State(); !s.LoadedFromDisk || s.Connected || s.Version.Position(0) != last.Version.Position(0) {
			r.Fatalf("from the file it is %+v, before it was %+v", s, last)
		}
	})
}
