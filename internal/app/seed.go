package app

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/registry"
)

// The demo registry.
const (
	demoTrial    = "T001"
	demoTrial2   = "T002"
	demoSites    = 5
	seedBatch    = 2000
	demoPatients = 10_000
)

func patientID(i int) string { return fmt.Sprintf("P-%06d", i) }

func siteID(i int) string { return fmt.Sprintf("S%02d", i%demoSites+1) }

// systemActor is Tidegate itself, in the named part.
func systemActor(part string) epro.Actor { return epro.Actor{Type: epro.ActorSystem, ID: part} }

// seedID is the same for the same command, so that a seed that was cut short
// can be run again: what was applied is known by its id.
func seedID(parts ...string) epro.UUID {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s|", len(p), p)
	}
	u := epro.UUID(h.Sum(nil)[:16])
	u[6] = u[6]&0x0f | 0x80 // version 8: made by a rule of our own
	u[8] = u[8]&0x3f | 0x80
	return u
}

// demoCommands are the demo registry for n participants, in order: trials, one
// instrument each, sites, everybody in T001, every second one in T002 too.
func demoCommands(n int) []registry.Command {
	var out []registry.Command
	add := func(kind epro.Kind, body any, id ...string) {
		out = append(out, registry.Command{Kind: kind, ID: seedID(append([]string{kind.String()}, id...)...), Actor: systemActor("seed"), Body: body})
	}
	add(epro.KindTrialCreated, epro.TrialCreated{TrialID: demoTrial, Name: "A Phase III Study of DrugX", Status: epro.TrialRecruiting, Shard: shard}, demoTrial)
	add(epro.KindTrialCreated, epro.TrialCreated{TrialID: demoTrial2, Name: "Observational Study of DiseaseY", Status: epro.TrialActive, Shard: shard}, demoTrial2)
	for _, trial := range []string{demoTrial, demoTrial2} {
		add(epro.KindInstrumentPublished, epro.InstrumentPublished{TrialID: trial, Instrument: epro.QoLInstrument, Version: epro.QoLVersion}, trial)
		for i := range demoSites {
			add(epro.KindSiteCreated, epro.SiteCreated{TrialID: trial, SiteID: siteID(i), Name: fmt.Sprintf("Site %d", i+1)}, trial, siteID(i))
		}
	}
	for i := 1; i <= n; i++ {
		p := patientID(i)
		add(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: demoTrial, SiteID: siteID(i - 1), PatientID: p}, demoTrial, p)
		if i%2 == 0 {
			add(epro.KindParticipantEnrolled, epro.ParticipantEnrolled{TrialID: demoTrial2, SiteID: siteID(i - 1), PatientID: p}, demoTrial2, p)
		}
	}
	return out
}

// submitter is the part of intake that writes commands.
type submitter interface {
	SubmitAll(ctx context.Context, facts []*epro.Fact) []intake.Outcome
}

// notSeeded is for an error of seed.
func (n *node) notSeeded(err error) error {
	return fmt.Errorf("the demo registry is not complete, what is there will not be written twice: %w", n.notWritten(err))
}

// seed writes commands as facts, in batches, and tells how far it is.
func seed(ctx context.Context, in submitter, commands []registry.Command, progress func(done, total int)) error {
	for start := 0; start < len(commands); start += seedBatch {
		batch := commands[start:min(start+seedBatch, len(commands))]
		facts := make([]*epro.Fact, len(batch))
		for i, c := range batch {
			f, err := registry.Fact(c, time.Now())
			if err != nil {
				return fmt.Errorf("seed: %w", err)
			}
			facts[i] = &f
		}
		for _, o := range in.SubmitAll(ctx, facts) {
			if o.Err != nil {
				return o.Err
			}
		}
		if progress != nil {
			progress(start+len(batch), len(commands))
		}
	}
	return nil
}
