package trialrpc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tidegate/tidegate/internal/trialrpc"
)

// authority issues certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &a.key.PublicKey, a.key)
	must(t, err)
	a.file = filepath.Join(a.dir, "ca.pem")
	must(t, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return a
}

// issue makes a certificate that is valid from now on for a time, in files of
// the name: the same name again renews it.
func (a *authority) issue(name string, life time.Duration) trialrpc.TLS {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(a.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, &key.PublicKey, a.key)
	must(a.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	files := trialrpc.TLS{Cert: filepath.Join(a.dir, name+".pem"), Key: filepath.Join(a.dir, name+".key"), CA: a.file}
	must(a.t, os.WriteFile(files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(a.t, os.WriteFile(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return files
}

// TestMutualTLS lets in who has a valid certificate of the authority, and
// nobody else; and a client trusts nobody else either.
func TestMutualTLS(t *testing.T) {
	w := newWorld(t)
	ours, theirs := newAuthority(t), newAuthority(t)
	s := w.serve(func(o *trialrpc.Options) { o.Settings.TLS = ours.issue("trial", time.Hour) })
	call := func(files trialrpc.TLS, addr string) error {
		client := w.client(func(o *trialrpc.ClientOptions) { o.Settings.Endpoints, o.Settings.TLS = []string{addr}, files })
		_, err := client.PatientTrials(t.Context(), "P-1")
		return err
	}
	if err := call(ours.issue("gateway", time.Hour), s.addr); err != nil {
		t.Errorf("a gateway: %v", err)
	}
	mixed := theirs.issue("stranger", time.Hour)
	mixed.CA = ours.file // believes the service, but has a foreign certificate
	for name, files := range map[string]trialrpc.TLS{
		"of another authority":        theirs.issue("stranger", time.Hour),
		"with a foreign certificate":  mixed,
		"with an expired certificate": ours.issue("old", -time.Hour),
	} {
		if err := call(files, s.addr); failureOf(err).code != codes.Unavailable {
			t.Errorf("a client %s: %v", name, err)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed(t, ours.file))
	for name, creds := range map[string]credentials.TransportCredentials{
		"without a certificate": credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13}),
		"in plain text":         insecure.NewCredentials(),
	} {
		_, err := dial(t, s.addr, grpc.WithTransportCredentials(creds)).GetPatientTrials(t.Context(), patient1)
		if failureOf(err).code != codes.Unavailable {
			t.Errorf("a client %s: %v", name, err)
		}
	}
	expired := w.serve(func(o *trialrpc.Options) { o.Settings.TLS = ours.issue("old-trial", -time.Hour) })
	if err := call(ours.issue("gateway", time.Hour), expired.addr); failureOf(err).code != codes.Unavailable {
		t.Errorf("a service with an expired certificate: %v", err)
	}
	// A renewed file counts without a restart.
	ours.issue("old-trial", time.Hour)
	if err := call(ours.issue("gateway", time.Hour), expired.addr); err != nil {
		t.Errorf("a service with a renewed certificate: %v", err)
	}
	if strings.Contains(w.log.String(), "PRIVATE") {
		t.Error("the log has a key")
	}
}

func parsed(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return cert
}

// TestPlainTextStaysHere refuses plain text to or from another machine, with a
// sentence that says what to do.
func TestPlainTextStaysHere(t *testing.T) {
	w := newWorld(t)
	files := newAuthority(t).issue("trial", time.Hour)
	for listen, want := range map[string]string{
		"0.0.0.0:8081": "rpcTLS", ":8081": "rpcTLS", "192.0.2.7:8081": "rpcTLS", "trial.example:8081": "rpcTLS", "8081": "host:port",
		"127.0.0.1:8081": "", "[::1]:8081": "", "localhost:8081": "",
	} {
		o := w.options()
		o.Settings.Listen = listen
		_, err := trialrpc.NewServer(o)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("listening on %s: %v", listen, err)
		}
	}
	o := w.options()
	o.Settings.Listen, o.Settings.TLS = "0.0.0.0:8081", files
	if _, err := trialrpc.NewServer(o); err != nil {
		t.Errorf("with TLS: %v", err)
	}
	o.Settings.Etcd = trialrpc.Etcd{Endpoints: []string{"127.0.0.1:1"}, Key: "k", DialTimeout: time.Second}
	if _, err := trialrpc.NewServer(o); err == nil || !strings.Contains(err.Error(), "trial.advertise") {
		t.Errorf("every address in etcd: %v", err)
	}
	o.Settings.TLS.CA = ""
	if _, err := trialrpc.NewServer(o); err == nil || !strings.Contains(err.Error(), "belong together") {
		t.Errorf("half of TLS: %v", err)
	}
	o.Settings.TLS = files
	o.Settings.TLS.Cert = filepath.Join(t.TempDir(), "none.pem")
	o.Settings.Advertise = "192.0.2.7:8081"
	if _, err := trialrpc.NewServer(o); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("a certificate that is not there: %v", err)
	}
	for endpoint, want := range map[string]string{"192.0.2.7:8081": "rpcTLS", "trial:8081": "rpcTLS", "127.0.0.1": "host:port"} {
		c := settings()
		c.Endpoints = []string{endpoint}
		if _, err := trialrpc.NewClient(trialrpc.ClientOptions{Settings: c, Log: w.logger}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("calling %s: %v", endpoint, err)
		}
	}
	if _, err := trialrpc.NewClient(trialrpc.ClientOptions{Settings: settings(), Log: w.logger}); err == nil || !strings.Contains(err.Error(), "etcd.endpoints") {
		t.Errorf("calling nowhere: %v", err)
	}
}
