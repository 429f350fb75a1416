package gateway_test

import (
	"context"
	"testing"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// graded is a journal that says of each frame what it survives.
type graded struct {
	gateway.Frames
	class journal.Class
}

func (g graded) Properties() journal.Properties {
	p := g.Frames.Properties()
	p.Class = journal.ClassSyncReplica
	return p
}

func (g graded) Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error) {
	records, err := g.Frames.Read(ctx, shard, after, limit)
	for i := range records {
		records[i].Class = g.class
	}
	return records, err
}

// A receipt that is issued anew claims what its own frame survives, and what
// the journal promises only where the frame says nothing.
func TestReissuedReceiptSaysTheFramesClass(t *testing.T) {
	for frame, want := range map[journal.Class]journal.Class{
		0: journal.ClassSyncReplica, journal.ClassLocalFsync: journal.ClassLocalFsync, journal.ClassSyncReplica: journal.ClassSyncReplica,
	} {
		w := newWorld(t, setup{options: func(o *gateway.Options) { o.Frames = graded{o.Frames, frame} }})
		id, token := epro.NewUUID(), w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
		if a := w.post(submitPath, token, report("T001", "P-1", id, 5)); a.status != 200 {
			t.Fatal(a)
		}
		w.settle()
		r, err := receipt.Parse(w.get("/v1/patient/reports/"+id.String()+"/receipt", token).json(t)["receipt"].(string))
		if err != nil || r.Class != want {
			t.Errorf("the frame says %v, and the receipt %v (%v), not %v", frame, r.Class, err, want)
		}
	}
}
