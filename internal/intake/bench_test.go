package intake_test

import (
	"context"
	"crypto/ed25519"
	"testing"

	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// BenchmarkSubmit is one caller, so one frame a fact, on a journal in memory.
func BenchmarkSubmit(b *testing.B) {
	_, key, _ := ed25519.GenerateKey(nil)
	cfg := intake.NewDefaultConfig()
	cfg.Burst = 0
	in, err := intake.New(b.Context(), memjournal.New(memjournal.Options{}), receipt.NewSigner(key), intake.Options{Config: cfg})
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close(context.Background())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.Submit(context.Background(), report("T", "P", "x")); err != nil {
			b.Fatal(err)
		}
	}
}
