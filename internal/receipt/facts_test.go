package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// vectorFacts are the facts of the vectors, by name and in order.
func vectorFacts() ([]string, []epro.Fact) {
	var names []string
	var facts []epro.Fact
	add := func(name string, e epro.Envelope, body string) {
		f := epro.Fact{Envelope: e, Salt: epro.Salt(derive("salt " + name)[:16]), Body: []byte(body)}
		f.BodyDigest = epro.BodyDigest(f.Salt, f.Body)
		if e.Kind == epro.KindReport {
			// The digest is keyed; canonical meanings have vectors of their own.
			f.Meaning = epro.ReportMeaning(epro.MeaningKey(derive("meaning key")), []byte("canonical meaning of "+name))
		} else {
			f.Meaning = epro.PlainMeaning(f.Body)
		}
		names, facts = append(names, name), append(facts, f)
	}
	uuid := func(name string) epro.UUID { return epro.UUID(derive("id " + name)[:16]) }
	long := func(c string) string { return strings.Repeat(c, epro.MaxIDLength) }
	received := time.Date(2026, 3, 1, 0, 30, 2, 123456789, time.UTC)

	add("minimal", epro.Envelope{
		Kind: epro.Kind{Name: "k", Version: 0}, Actor: epro.Actor{Type: epro.ActorSystem},
		OccurredAt: time.Unix(0, 0).UTC(), ReceivedAt: time.Unix(0, 0).UTC(),
	}, "")
	add("maximal", epro.Envelope{
		Flags: 0xffff, Kind: epro.Kind{Name: long("k"), Version: 0xffff}, ID: epro.UUID(bytes.Repeat([]byte{0xff}, 16)),
		Trial: long("T"), Subject: long("~"), Actor: epro.Actor{Type: epro.ActorRelay, ID: long("a"), Device: long(" ")},
		TokenKey: 0xffffffff, Epoch: 0xffffffff,
		OccurredAt: time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.FixedZone("", -(23*3600+59*60))),
		ReceivedAt: time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
	}, "{}")
	add("earliest", epro.Envelope{
		Kind: epro.KindReport, ID: uuid("earliest"), Trial: "T001", Subject: "P-000009",
		Actor:      epro.Actor{Type: epro.ActorParticipant, ID: "P-000009", Device: "d1"},
		OccurredAt: time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", 23*3600+59*60)), ReceivedAt: received,
	}, `{"patientId":"P-000009","trialId":"T001","timestamp":"0000-01-01T00:00:00+23:59","qolScore":0}`)
	add("report", epro.Envelope{
		Kind: epro.KindReport, ID: uuid("report"), Trial: "T001", Subject: "P-000001",
		Actor: epro.Actor{Type: epro.ActorParticipant, ID: "P-000001", Device: "8c2f01"}, TokenKey: 7, Epoch: 1,
		OccurredAt: time.Date(2026, 3, 1, 8, 30, 0, 0, time.FixedZone("", 8*3600)), ReceivedAt: received,
	}, `{"patientId":"P-000001","trialId":"T001","timestamp":"2026-03-01T08:30:00+08:00","qolScore":7,"comments":"ok"}`)
	add("negative-offset", epro.Envelope{
		Flags: epro.FlagDerivedID, Kind: epro.KindReport, ID: uuid("negative"), Trial: "T001", Subject: "P-000002",
		Actor: epro.Actor{Type: epro.ActorParticipant, ID: "P-000002", Device: "8c2f02"}, TokenKey: 7, Epoch: 2,
		OccurredAt: time.Date(2026, 2, 28, 21, 0, 1, 500000000, time.FixedZone("", -(3*3600+30*60))), ReceivedAt: received,
	}, `{"patientId":"P-000002","trialId":"T001","timestamp":"2026-02-28T21:00:01.5-03:30","qolScore":10}`)
	add("relay", epro.Envelope{
		Flags: epro.FlagClockApart, Kind: epro.KindReport, ID: uuid("relay"), Trial: "T002", Subject: "P-000004",
		Actor: epro.Actor{Type: epro.ActorRelay, ID: "relay-S01"}, TokenKey: 9,
		OccurredAt: time.Date(2026, 3, 1, 0, 29, 0, 0, time.UTC), ReceivedAt: received,
	}, `{"patientId":"P-000004","trialId":"T002","timestamp":"2026-03-01T00:29:00Z","qolScore":0}`)
	add("staff", epro.Envelope{
		Kind: epro.KindParticipantEnrolled, ID: uuid("staff"), Trial: "T001", Subject: "P-000003",
		Actor:      epro.Actor{Type: epro.ActorStaff, ID: "st-4"},
		OccurredAt: received, ReceivedAt: received,
	}, `{"site":"S01"}`)
	return names, facts
}

// seal encodes facts as a frame; erased names the entries without content.
func seal(t testing.TB, h journal.Header, facts []epro.Fact, erased ...int) (journal.Sealed, *journal.Tree, []journal.Entry) {
	t.Helper()
	entries := make([]journal.Entry, len(facts))
	leaves := make([]epro.Digest, len(facts))
	for i := range facts {
		env, err := facts[i].AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		entries[i] = journal.Entry{Envelope: env, Salt: facts[i].Salt, Body: facts[i].Body}
		leaves[i] = epro.Leaf(env)
	}
	stored := append([]journal.Entry(nil), entries...)
	for _, i := range erased {
		stored[i] = journal.Entry{Envelope: entries[i].Envelope, Erased: true}
	}
	sealed, err := journal.Seal(h, stored, leaves)
	if err != nil {
		t.Fatal(err)
	}
	return sealed, journal.NewTree(leaves), entries
}

func sign(k ed25519.PrivateKey, class journal.Class, f journal.Sealed, tree *journal.Tree) *receipt.Signed {
	s := receipt.NewSigner(k)
	return &receipt.Signed{Header: f.Header, Class: class, KeyID: s.KeyID(), Signature: s.Sign(f.Hash, class), Tree: tree}
}
