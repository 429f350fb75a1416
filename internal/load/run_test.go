package load_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/load"
	"github.com/tidegate/tidegate/internal/receipt"
)

// New signing keys are learned from the server, and believed only if the root
// certified them.
func TestKeysRotateDuringARun(t *testing.T) {
	r := newRig(t, nil)
	opts := r.options(5)
	before, err := auth.LoadKeys(r.keysDir)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := r.keys.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := receipt.ParseKeyID(cert.KeyID)
	if err == nil {
		err = r.keys.UseSigningKey(id)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.in.SetSigner(r.keys.Signer())
	opts.Keys = before
	if s := r.run(opts); !s.Clean() || s.Retries != 0 {
		t.Errorf("%s", s.String())
	}
	foreign, err := auth.InitKeys(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	opts.Keys, opts.Retry = foreign, false
	if s := r.run(opts); s.Failed != 5 || s.FailedByStatus["401"] != 5 {
		t.Errorf("phones with tokens of another installation: %s", s.String())
	}
}

func TestWrongUseIsSaidBeforeAnythingIsSent(t *testing.T) {
	r := newRig(t, nil)
	for what, change := range map[string]func(*load.Options){
		"no target":             func(o *load.Options) { o.Target = "127.0.0.1:8080" },
		"no keys":               func(o *load.Options) { o.Keys = nil },
		"no phones":             func(o *load.Options) { o.Phones = -1 },
		"unknown shape":         func(o *load.Options) { o.Shape = "sine" },
		"too many lines":        func(o *load.Options) { o.Bulk = 10_001 },
		"fresh TLS without TLS": func(o *load.Options) { o.TLSFresh = true },
		"no such authority":     func(o *load.Options) { o.CAFile = r.acks + ".pem" },
		"bad trial":             func(o *load.Options) { o.Trial = "é" },
	} {
		opts := r.options(1)
		change(&opts)
		if _, err := load.Run(t.Context(), opts); !errors.Is(err, load.ErrOptions) {
			t.Errorf("%s: %v", what, err)
		}
	}
	opts := r.options(1)
	opts.AcksFile = filepath.Join(t.TempDir(), "no", "such", "folder")
	if _, err := load.Run(t.Context(), opts); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("acks file that cannot be made: %v", err)
	}
	if len(r.tries) != 0 {
		t.Error("something was sent")
	}
}

// What was acknowledged before stays, part of a line at the end does not.
func TestAcksFileIsAppendedTo(t *testing.T) {
	r := newRig(t, nil)
	r.run(r.options(5))
	whole, err := os.ReadFile(r.acks)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.acks, append(whole, whole[:100]...), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := r.options(5)
	opts.First, opts.Seed = 100, 8
	r.run(opts)
	if n := r.readAcks(); n != 10 {
		t.Errorf("%d lines", n)
	}
	// A disk that is full stops the run: an acknowledgement that is not written
	// down must not be claimed.
	if _, err := os.Stat("/dev/full"); err == nil {
		opts.AcksFile, opts.Seed = "/dev/full", 9
		s, err := load.Run(t.Context(), opts)
		if err == nil || s.Acknowledged != 0 {
			t.Errorf("%v: %s", err, s.String())
		}
	}
}

func TestStoppedRunSaysWhatIsUnsent(t *testing.T) {
	r := newRig(t, func(_ int, _ http.ResponseWriter, req *http.Request) bool {
		<-req.Context().Done()
		return true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	opts := r.options(100)
	opts.Over = time.Hour
	opts.Shape = load.ShapeUniform
	s, err := load.Run(ctx, opts)
	if !errors.Is(err, context.DeadlineExceeded) || s.Unsent+s.Unknown != 100 || s.Unsent < 90 {
		t.Errorf("%v: %s", err, s.String())
	}
}

// Each try with TLSFresh is a connection of its own with a full handshake.
func TestFreshTLS(t *testing.T) {
	r := newRig(t, nil)
	var connections, resumed atomic.Int64
	tlsServer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.TLS.DidResume {
			resumed.Add(1)
		}
		r.real.ServeHTTP(w, req)
	}))
	tlsServer.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	tlsServer.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	tlsServer.StartTLS()
	defer tlsServer.Close()
	opts := r.options(30)
	opts.Target, opts.TLSFresh, opts.Retry = tlsServer.URL, true, false
	if s := r.run(opts); s.Unreached != 30 {
		t.Errorf("a certificate that nobody vouches for was taken: %s", s.String())
	}
	connections.Store(0)
	opts.CAFile = writeCA(t, tlsServer)
	if s := r.run(opts); !s.Clean() || connections.Load() != 30 || resumed.Load() != 0 {
		t.Errorf("%d connections, %d resumed: %s", connections.Load(), resumed.Load(), s.String())
	}
	connections.Store(0)
	opts.CAFile, opts.InsecureTLS, opts.TLSFresh, opts.Seed, opts.Connections = "", true, false, 9, 3
	if s := r.run(opts); !s.Clean() || connections.Load() > 3 {
		t.Errorf("shared: %d connections: %s", connections.Load(), s.String())
	}
}

func ExampleProgress_String() {
	fmt.Println(load.Progress{Elapsed: 12500 * time.Millisecond, Phones: 10000, Due: 6231, Acknowledged: 6226, UnderWay: 4, Waiting: 1, Tries: 6235})
	// Output:  12.5 s  due 6231 of 10000  acknowledged 6226  under way 4  waiting to try again 1  tries 6235
}
