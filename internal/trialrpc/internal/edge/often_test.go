package edge_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
)

// A trouble is told when it begins, when it is over, and now and then between,
// for each method.
func TestTroubleIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		trouble := edge.NewTrouble(slog.New(slog.NewTextHandler(&log, nil)))
		fails := func(method string) { _ = edge.Status(t.Context(), trouble, method, errors.New("tables are down")) }
		told := func(begun, lasting, over int) {
			t.Helper()
			for text, want := range map[string]int{"was not answered for want of": begun, "can still not be answered": lasting, "are answered again": over} {
				if got := strings.Count(log.String(), text); got != want {
					t.Errorf("%q is in the log %d times, want %d:\n%s", text, got, want, &log)
				}
			}
		}
		trouble.Answered(t.Context(), "getTrial")
		told(0, 0, 0)
		for range 100 { // as gateways come back for the directory
			fails("watchDirectory")
			time.Sleep(2 * time.Second)
		}
		told(1, 0, 0)
		fails("getTrial")
		told(2, 0, 0)
		for range 60 {
			fails("watchDirectory")
			time.Sleep(2 * time.Second)
		}
		told(2, 1, 0)
		fails("watchDirectory")
		trouble.Answered(t.Context(), "watchDirectory") // too early to say
		told(2, 1, 0)
		time.Sleep(10 * time.Second)
		trouble.Answered(t.Context(), "watchDirectory")
		trouble.Answered(t.Context(), "watchDirectory")
		told(2, 1, 1)
		time.Sleep(2 * time.Minute)
		fails("getTrial") // nobody asked meanwhile: it may be another one
		told(3, 1, 1)
	})
}
