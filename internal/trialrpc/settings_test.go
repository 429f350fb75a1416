package trialrpc_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/trialrpc"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trial.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// TestYAML reads go-zero's file over what is there: a key that it does not name
// stays.
func TestYAML(t *testing.T) {
	there := trialrpc.Settings{
		Listen: "127.0.0.1:8081", Timeout: 2 * time.Second, MaxConcurrent: 256, Rate: 1000, Burst: 50, Shedding: true,
		Etcd: trialrpc.Etcd{Key: "tidegate/trial.rpc", DialTimeout: 5 * time.Second, User: "trial"},
	}
	shipped, err := trialrpc.LoadYAML("etc/trial.yaml", there)
	must(t, err)
	want := there
	want.Etcd.Endpoints, want.Shedding = []string{"127.0.0.1:2379"}, false
	if !reflect.DeepEqual(shipped, want) {
		t.Errorf("etc/trial.yaml makes\n%+v, want\n%+v", shipped, want)
	}
	got, err := trialrpc.LoadYAML(write(t, `
Name: trial.rpc
ListenOn: 10.0.0.1:9000
Mode: dev
Timeout: 750
CpuThreshold: 900
Health: true
Advertise: 10.0.0.2:9000
MaxConcurrent: 0
Rate: 7
Burst: 8
Endpoints: [10.0.0.3:9000]
Etcd: {Hosts: ['etcd-a:1', 'etcd-b:2'], Key: k, User: u, PassFile: p, CertFile: c, CertKeyFile: d, CACertFile: e}
TLS: {CertFile: f, CertKeyFile: g, CACertFile: h}
`), there)
	must(t, err)
	want = trialrpc.Settings{
		Listen: "10.0.0.1:9000", Advertise: "10.0.0.2:9000", Endpoints: []string{"10.0.0.3:9000"}, Timeout: 750 * time.Millisecond,
		MaxConcurrent: 0, Rate: 7, Burst: 8, Shedding: true, Reflection: true,
		Etcd: trialrpc.Etcd{Endpoints: []string{"etcd-a:1", "etcd-b:2"}, Key: "k", User: "u", PasswordFile: "p", Cert: "c", CertKey: "d", CA: "e", DialTimeout: 5 * time.Second},
		TLS:  trialrpc.TLS{Cert: "f", Key: "g", CA: "h"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("all keys make\n%+v, want\n%+v", got, want)
	}
	if empty, err := trialrpc.LoadYAML(write(t, "Name: trial.rpc\n"), there); err != nil || !reflect.DeepEqual(empty, there) {
		t.Errorf("a file that says nothing makes %+v, %v", empty, err)
	}
}

// TestYAMLRefuses what go-zero would pass over, and what is said elsewhere.
func TestYAMLRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"TimeOut: 3000":               "TimeOut",
		"Etcd: {Host: [a:1]}":         "Host",
		"Timeout: 0":                  "Timeout",
		"Timeout: soon":               "Timeout",
		"Mode: prod":                  "Mode",
		"Health: false":               "Health",
		"Name: other":                 "Name",
		"CpuThreshold: 500":           "CpuThreshold",
		"DevServer: {}":               "admin",
		"Telemetry: {Endpoint: x}":    "tracing.endpoint",
		"Log: {Mode: file}":           "log.format",
		"Auth: true":                  "rpcTLS",
		"Middlewares: {Stat: true}":   "trial.timeout",
		"Etcd: {Pass: hunter2}":       "PassFile",
		"ListenOn: [":                 "trial.yaml",
		"Shutdown: {WaitTime: 5500m}": "Shutdown",
	} {
		_, err := trialrpc.LoadYAML(write(t, text+"\n"), settings())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a sentence with %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error has the password: %v", text, err)
		}
	}
	if _, err := trialrpc.LoadYAML("none.yaml", settings()); err == nil {
		t.Error("a file that is not there is read")
	}
}
