package trialrpc_test

import (
	"testing"

	"github.com/tidegate/tidegate/internal/trialrpc"
)

// BenchmarkCall is one getPatientTrials over loopback, from Tidegate's client
// through breaker and balancer to the tables and back.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b)
	s := w.serve(nil)
	client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints = []string{s.addr} })
	if _, err := client.PatientTrials(b.Context(), "P-2"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.PatientTrials(b.Context(), "P-2"); err != nil {
			b.Fatal(err)
		}
	}
}
