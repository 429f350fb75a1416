package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/gateway"
	"github.com/tidegate/tidegate/internal/receipt"
)

func (w *world) admin(path string) (int, string) {
	rec := httptest.NewRecorder()
	w.gateway.Admin().ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
	return rec.Code, rec.Body.String()
}

func TestReadyDoesNotWaitForTheProjector(t *testing.T) {
	w := newWorld(t, setup{noProjector: true, noSeed: true})
	if code, text := w.admin("/readyz"); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	w.gateway.SetReady(false)
	if code, _ := w.admin("/readyz"); code != 503 {
		t.Error("ready although it is not")
	}
	w.gateway.SetReady(true)
	must(t, w.intake.Close(t.Context()))
	if code, text := w.admin("/readyz"); code != 503 || !strings.Contains(text, "intake") {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := w.admin("/healthz"); code != 200 {
		t.Error("not healthy")
	}
}

func TestStoppingIsNotReady(t *testing.T) {
	w := newWorld(t, setup{noSeed: true})
	w.stop()
	err := <-w.stopped
	w.stopped <- err
	if code, _ := w.admin("/readyz"); code != 503 {
		t.Error("ready although it has stopped")
	}
}

func TestMetricsAndStatusHoldNoIDs(t *testing.T) {
	since := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var controlled atomic.Bool
	w := newWorld(t, setup{options: func(o *gateway.Options) {
		o.Dependencies = []gateway.Dependency{{Name: "journal", Check: func() gateway.State {
			return gateway.State{OK: true, State: "serving", Since: since}
		}}}
		o.Control = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { controlled.Store(true) })
	}})
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	id := epro.NewUUID()
	w.post(submitPath, token, report("T001", "P-1", id, 1))
	w.post(submitPath, token, "{}")
	w.post("/v1/nowhere/P-1", token, "{}")
	w.settle()
	w.get("/v1/patient/reports/"+id.String(), token)
	_, text := w.admin("/metrics")
	for _, want := range []string{
		`tidegate_http_requests_total{method="POST",route="/v1/patient/report",status="2xx"} 1`,
		`tidegate_http_requests_total{method="POST",route="/v1/patient/report",status="4xx"} 1`,
		`tidegate_http_requests_total{method="GET",route="/v1/patient/reports/:reportId",status="2xx"} 1`,
		`tidegate_http_requests_total{method="any",route="none",status="4xx"} 1`,
		"tidegate_intake_facts_total", `tidegate_ready{role="all"} 1`, "tidegate_projector_lag_seconds 0", "tidegate_http_connections ", `tidegate_dependency_up{dependency="journal"} 1`, "go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	_, status := w.admin("/status")
	var m struct {
		Role         string
		Ready        bool
		Dependencies map[string]gateway.State
		Projector    struct{ Applied, End uint64 }
	}
	must(t, json.Unmarshal([]byte(status), &m))
	if m.Role != gateway.RoleAll || !m.Ready || m.Dependencies["journal"].State != "serving" || m.Projector.Applied != uint64(w.end()) {
		t.Errorf("%s", status)
	}
	for _, secret := range []string{"P-1", id.String(), token} {
		if strings.Contains(text+status, secret) {
			t.Errorf("%s is shown", secret)
		}
	}
	if code, _ := w.admin("/control/x"); code != 200 || !controlled.Load() {
		t.Error("the control routes are not mounted")
	}
	if code, _ := w.admin("/debug/pprof/cmdline"); code != 200 {
		t.Error("no pprof")
	}
	if a := w.get("/debug/pprof/", ""); a.status != 404 {
		t.Errorf("pprof on the public listener: %s", a)
	}
}

func TestKeysShowRetirementsAndNewKeys(t *testing.T) {
	w := newWorld(t, setup{})
	old := w.keys.Signer().KeyID()
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	id := epro.NewUUID()
	a := w.post(submitPath, token, report("T001", "P-1", id, 1))
	first, err := receipt.Parse(a.json(t)["receipt"].(string))
	must(t, err)

	cert, err := w.keys.NewSigningKey() // not told yet
	must(t, err)
	newID, err := receipt.ParseKeyID(cert.KeyID)
	must(t, err)
	if set := w.keySet(); !set.Has(newID) || !set.Has(old) {
		t.Error("the new key is not shown before its fact is in the tables")
	}
	add, _ := json.Marshal(cert)
	w.command(epro.KindKeyAdded, json.RawMessage(add))
	must(t, w.keys.UseSigningKey(newID))
	retired, err := w.keys.Retire(old, receipt.RetiredRotated)
	must(t, err)
	gone, _ := json.Marshal(retired)
	w.command(epro.KindKeyRetired, json.RawMessage(gone))
	w.settle()
	keys := w.get("/v1/keys", "")
	if !strings.Contains(string(keys.body), `"reason":"rotated"`) {
		t.Errorf("the retirement is not shown: %s", keys)
	}
	must(t, first.Check(w.keySet())) // rotation keeps old receipts valid
	again, err := receipt.Parse(strings.TrimSpace(string(w.send("GET", "/v1/patient/reports/"+id.String()+"/receipt", token, nil, header{"Accept", "text/plain"}).body)))
	must(t, err)
	must(t, again.Check(w.keySet()))
	if again.KeyID != newID || again.Index != first.Index || string(again.Envelope) != string(first.Envelope) {
		t.Error("the receipt issued anew is not the same proof under the new key")
	}
}

func TestOwnReportsArePending(t *testing.T) {
	w := newWorld(t, setup{noProjector: true, noSeed: true})
	token := w.participant("T001", "P-1", auth.ScopeSubmit|auth.ScopeRead)
	id := epro.NewUUID()
	if a := w.post(submitPath, token, report("T001", "P-1", id, 1)); a.status != 200 {
		t.Fatal(a)
	}
	path := "/v1/patient/reports/" + id.String()
	if m := w.get(path, token).json(t); m["disposition"] != "pending" {
		t.Errorf("%v", m)
	}
	other := w.participant("T001", "P-2", auth.ScopeRead)
	for _, a := range []*answer{w.get(path+"/receipt", token), w.get(path, other), w.get("/v1/patient/reports/x", token)} {
		w.isProblem(t, a, 404, "not-found")
	}
	w.isProblem(t, w.get(path, w.participant("T001", "P-1", auth.ScopeSubmit)), 403, "scope-missing")
}

// certificate makes a self-signed certificate in files.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return certFile, keyFile
}

func TestTLS(t *testing.T) {
	certFile, keyFile := certificate(t)
	for _, old := range []bool{false, true} {
		w := newWorld(t, setup{noSeed: true, config: func(c *gateway.Config) {
			c.TLSCertFile, c.TLSKeyFile, c.TLSAllow12 = certFile, keyFile, old
			c.MaxHandshakes, c.ReadHeaderTimeout = 1, time.Second
		}})
		// Clients that connect and say nothing hold no place among the handshakes.
		for range 5 {
			w.dial("")
		}
		w.client = &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
		}}
		token := w.participant("T001", "P-1", auth.ScopeSubmit)
		for range 3 {
			if a := w.post(submitPath, token, report("T001", "P-1", epro.NewUUID(), 1)); a.status != 200 {
				t.Error(a)
			}
		}
		resp, err := w.client.Get(w.url + "/v1/keys")
		must(t, err)
		_ = resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.TLS.Version != tls.VersionTLS13 {
			t.Errorf("%s over %s", resp.Proto, tls.VersionName(resp.TLS.Version))
		}
		// A fresh connection each, many at once: the cap makes them wait, not fail.
		errs := make(chan error, 20)
		for range cap(errs) {
			go func() {
				c, err := tls.Dial("tcp", w.addr, &tls.Config{InsecureSkipVerify: true})
				if err == nil {
					err = c.Close()
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			must(t, <-errs)
		}
		c, err := tls.Dial("tcp", w.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		if (err == nil) != old {
			t.Errorf("TLS 1.2 allowed %v: %v", old, err)
		}
		if err == nil {
			_ = c.Close()
		}
		w.client.CloseIdleConnections()
	}
}

func TestWrongOptionsAreSaid(t *testing.T) {
	for want, change := range map[string]func(*gateway.Config){
		"time-out":       func(c *gateway.Config) { c.ReadTimeout = 0 },
		"maxConnections": func(c *gateway.Config) { c.MaxConnections = 0 },
		"tlsCertFile":    func(c *gateway.Config) { c.TLSCertFile = "x" },
		"maxHeaderBytes": func(c *gateway.Config) { c.MaxHeaderBytes = 0 },
		"commandWait":    func(c *gateway.Config) { c.StopTimeout = 0 },
	} {
		cfg := gateway.NewDefaultConfig()
		change(&cfg)
		if _, err := gateway.New(gateway.Options{Config: cfg}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := gateway.New(gateway.Options{Config: gateway.NewDefaultConfig()}); err == nil || !strings.Contains(err.Error(), "is required") {
		t.Error(err)
	}
}

// TestTheAdminListenerServes goes through a real listener.
func TestTheAdminListenerServes(t *testing.T) {
	w := newWorld(t, setup{noSeed: true})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.gateway.ServeAdmin(ctx, l) }()
	resp, err := http.Get(fmt.Sprintf("http://%s/readyz", l.Addr()))
	must(t, err)
	_ = resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	must(t, <-ended)
}
