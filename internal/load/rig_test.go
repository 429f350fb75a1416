package load_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
	"github.com/tidegate/tidegate/internal/load"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a real gateway over a real intake, behind a handler that tests put
// their misbehaviour into.
type rig struct {
	t       *testing.T
	keysDir string
	keys    *auth.Keys
	journal *memjournal.Journal
	in      *intake.Intake
	real    http.Handler
	server  *httptest.Server
	acks    string

	mu    sync.Mutex
	tries map[string][]seen // by Authorization header: one phone each
}

// seen is what the server saw of one try.
type seen struct {
	at   time.Time
	body [32]byte
}

// newRig starts a server. spoil, if not nil, is asked first at each try, with the
// number of the phone's try from 1; it returns true if it has answered.
func newRig(t *testing.T, spoil func(try int, w http.ResponseWriter, r *http.Request) bool) *rig {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	keys, err := auth.InitKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, keysDir: dir, keys: keys, journal: memjournal.New(memjournal.Options{}), tries: map[string][]seen{}, acks: filepath.Join(t.TempDir(), "acks.ndjson")}
	r.in, err = intake.New(t.Context(), r.journal, keys.Signer(), intake.Options{Config: intake.NewDefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := gateway.New(gateway.Options{
		Config: gateway.NewDefaultConfig(), Intake: r.in, Tokens: keys, MeaningKey: keys.MeaningKey,
		Frames: r.journal, Signer: keys.Signer, Root: keys.RootPublic(),
		// Nothing here is on a phone's way; a nil call would say so loudly.
		Credentials: struct{ auth.Credentials }{}, Reader: struct{ store.Reader }{},
		Passed: func(context.Context, epro.UUID) (store.Outcome, error) { return store.Outcome{}, errors.ErrUnsupported },
		Pending: func(context.Context, uint32, journal.Position) (map[string]uint64, error) {
			return nil, errors.ErrUnsupported
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.real = s.Public()
	r.server = httptest.NewServer(r.handler(spoil))
	t.Cleanup(func() {
		r.server.CloseClientConnections()
		r.server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.in.Close(ctx); err != nil {
			t.Error(err)
		}
		r.journal.Close()
	})
	return r
}

func (r *rig) handler(spoil func(int, http.ResponseWriter, *http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v1/keys" { // the gateway's own needs tables
			_ = json.NewEncoder(w).Encode(receipt.NewKeys(r.keys.RootPublic(), r.keys.Certificates()...))
			return
		}
		// net/http notices that a client went away only when the body was read.
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		who := req.Header.Get("Authorization")
		r.mu.Lock()
		r.tries[who] = append(r.tries[who], seen{at: time.Now(), body: sha256.Sum256(body)})
		try := len(r.tries[who])
		r.mu.Unlock()
		if spoil == nil || !spoil(try, w, req) {
			r.real.ServeHTTP(w, req)
		}
	})
}

// options are those of a short run with quick retries.
func (r *rig) options(phones int) load.Options {
	return load.Options{
		Target: r.server.URL, Keys: r.keys, Phones: phones, Over: 200 * time.Millisecond, Shape: load.ShapeUniform, Seed: 7,
		Retry: true, Grace: 20 * time.Second, Timeout: 5 * time.Second, BackoffBase: 20 * time.Millisecond, BackoffCap: 100 * time.Millisecond,
		AcksFile: r.acks,
	}
}

func (r *rig) run(opts load.Options) load.Summary {
	r.t.Helper()
	s, err := load.Run(r.t.Context(), opts)
	if err != nil {
		r.t.Fatal(err)
	}
	if sum := s.Acknowledged + s.Refused + s.Unreached + s.Unknown + s.Failed + s.Unsent; sum != s.Offered {
		r.t.Errorf("the results of %d phones sum up to %d", s.Offered, sum)
	}
	return s
}

// ack is a line of the acks file, in the form that auditors read.
type ack struct {
	ReportID  string `json:"reportId"`
	PatientID string `json:"patientId"`
	TrialID   string `json:"trialId"`
	SHA256    string `json:"sha256"`
	Receipt   string `json:"receipt"`
}

// readAcks checks each line against the journal, byte for byte, and returns
// how many there are.
func (r *rig) readAcks() int {
	r.t.Helper()
	stored := map[string][][]byte{} // bodies by report id
	for after := journal.Position(0); ; {
		records, err := r.journal.Read(r.t.Context(), 0, after, 1000)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(records) == 0 {
			break
		}
		for _, rec := range records {
			f, err := journal.DecodeFrame(rec.Bytes)
			if err != nil {
				r.t.Fatal(err)
			}
			for _, e := range f.Entries {
				env, err := epro.DecodeEnvelope(e.Envelope)
				if err != nil {
					r.t.Fatal(err)
				}
				stored[env.ID.String()] = append(stored[env.ID.String()], e.Body)
			}
			after = rec.Position
		}
	}
	f, err := os.Open(r.acks)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	n := 0
	known := map[string]bool{}
	for in := bufio.NewScanner(f); in.Scan(); n++ {
		var a ack
		dec := json.NewDecoder(bytes.NewReader(in.Bytes()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&a); err != nil {
			r.t.Fatalf("line %d: %v", n+1, err)
		}
		if known[a.ReportID] {
			r.t.Errorf("report %s is acknowledged twice", a.ReportID)
		}
		known[a.ReportID] = true
		proof, err := receipt.Parse(a.Receipt)
		if err != nil {
			r.t.Fatal(err)
		}
		found := errors.New("not in the journal")
		for _, body := range stored[a.ReportID] {
			if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) == a.SHA256 && proof.MatchesBody(body) {
				found = nil
			}
		}
		if found != nil {
			r.t.Errorf("line %d: report of %s in %s: %v", n+1, a.PatientID, a.TrialID, found)
		}
	}
	return n
}
