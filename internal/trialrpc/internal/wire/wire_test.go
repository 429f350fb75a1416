package wire_test

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// TestChangesComeThrough sends changes as bytes and gets the same back.
func TestChangesComeThrough(t *testing.T) {
	text := rapid.StringN(1, 20, 80)
	at := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(1, 4e9).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
	})
	trial := rapid.Custom(func(t *rapid.T) store.Trial {
		return store.Trial{
			ID: text.Draw(t, "id"), Name: text.Draw(t, "name"), Status: epro.TrialStatus(text.Draw(t, "status")), Shard: rapid.Uint32().Draw(t, "shard"),
			Version: rapid.Uint64().Draw(t, "version"), Instruments: rapid.SliceOfN(text, 1, 3).Draw(t, "instruments"), CreatedAt: at.Draw(t, "created"),
		}
	})
	site := rapid.Custom(func(t *rapid.T) store.Site {
		return store.Site{TrialID: text.Draw(t, "trial"), ID: text.Draw(t, "id"), Name: text.Draw(t, "name"), CreatedAt: at.Draw(t, "created")}
	})
	enrollment := rapid.Custom(func(t *rapid.T) store.Enrollment {
		e := store.Enrollment{
			TrialID: text.Draw(t, "trial"), PatientID: text.Draw(t, "patient"), SiteID: text.Draw(t, "site"), Status: epro.Enrolled,
			MinEpoch: rapid.Uint32().Draw(t, "epoch"), Version: rapid.Uint64().Draw(t, "version"), EnrolledAt: at.Draw(t, "enrolled"),
		}
		if rapid.Bool().Draw(t, "gone") {
			e.Status, e.WithdrawnAt = epro.Withdrawn, at.Draw(t, "withdrawn")
		}
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		sent := directory.Change{
			Version: rapid.SliceOfN(rapid.Uint64(), 1, 4).Draw(t, "version"), Snapshot: rapid.Bool().Draw(t, "snapshot"), Done: rapid.Bool().Draw(t, "done"),
			Trials: rapid.SliceOfN(trial, 0, 3).Draw(t, "trials"), Sites: rapid.SliceOfN(site, 0, 3).Draw(t, "sites"),
			Enrollments: rapid.SliceOfN(enrollment, 0, 3).Draw(t, "enrollments"),
		}
		raw, err := proto.Marshal(wire.Change(&sent))
		if err != nil {
			t.Fatal(err)
		}
		var m trialv1.DirectoryChange
		if err := proto.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		if got := wire.ChangeOf(&m); !reflect.DeepEqual(got, sent) {
			t.Fatalf("sent\n%+v, got\n%+v", sent, got)
		}
	})
}
