package app_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/app"
)

// run runs the command line in this process.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = app.Main("test", args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tidegate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The defaults are a promise: a change of one is a change of testdata too.
func TestConfigDefaultIsAsPromised(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "config_default.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _, code := run(t, "config", "default"); code != 0 || got != string(want) {
		t.Errorf("config default prints\n%s\nand testdata/config_default.yaml holds\n%s", got, want)
	}
}

// What is printed as a file is a file, and says the defaults.
func TestPrintedConfigIsTheDefaults(t *testing.T) {
	for _, c := range []string{"default", "doc"} {
		out, _, _ := run(t, "config", c)
		got, err := app.LoadConfig(file(t, out), nil)
		if err != nil {
			t.Fatalf("config %s: %v", c, err)
		}
		want := app.NewDefaultConfig()
		for list, none := range map[*[]string][]string{
			&got.Anchors: want.Anchors, &got.Etcd.Endpoints: want.Etcd.Endpoints, &got.Trial.Endpoints: want.Trial.Endpoints, &got.Ship.To: want.Ship.To,
		} {
			if len(*list) == 0 {
				*list = none // an empty list is no list
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("config %s: %+v, want %+v", c, got, want)
		}
		if err := got.Validate(); err != nil {
			t.Error(err)
		}
		if w := got.Warnings(); len(w) != 0 {
			t.Errorf("the defaults are unwise: %q", w)
		}
	}
}

func TestConfigDocExplainsEverySetting(t *testing.T) {
	out, _, _ := run(t, "config", "doc")
	keys := app.SettingKeys()
	if len(keys) < 20 {
		t.Fatalf("%d settings", len(keys))
	}
	for key, env := range keys {
		if n := strings.Count(out, "# Environment: "+env+"\n"); n != 1 {
			t.Errorf("%s is explained %d times", key, n)
		}
	}
}

// Defaults, then the file, then the environment.
func TestConfigOrder(t *testing.T) {
	path := file(t, "data: from-file\nhttp: 127.0.0.1:1\nintake:\n  maxAge: 3s\n")
	c, err := app.LoadConfig(path, []string{
		"TIDEGATE_HTTP=127.0.0.1:2", "TIDEGATE_INTAKE_MAXFACTS=7", "TIDEGATE_INTAKE_REFILL=90ms", "TIDEGATE_ANCHORS=/a,/b", "PATH=/bin", "TIDEGATE_LONG=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != "from-file" || c.HTTP != "127.0.0.1:2" || c.Admin != app.NewDefaultConfig().Admin {
		t.Errorf("%+v", c)
	}
	if c.Intake.MaxAge != 3*time.Second || c.Intake.MaxFacts != 7 || c.Intake.Refill != 90*time.Millisecond || !reflect.DeepEqual(c.Anchors, []string{"/a", "/b"}) {
		t.Errorf("%+v", c.Intake)
	}
}

func TestConfigRefusals(t *testing.T) {
	for text, says := range map[string]string{
		"dta: x\n":                 "dta",
		"intake:\n  maxfacts: 1\n": "maxfacts",
		"data: x\ndata: y\n":       "data",
		"intake: 3\n":              "mapping is expected",
	} {
		if _, err := app.LoadConfig(file(t, text), nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for env, says := range map[string]string{
		"TIDEGATE_INTAKE_MAXFACTS=7.5":                   "TIDEGATE_INTAKE_MAXFACTS: must be a whole number",
		"TIDEGATE_INTAKE_MAXAGE=7":                       "TIDEGATE_INTAKE_MAXAGE: must be a duration",
		"TIDEGATE_DATTA=x":                               "TIDEGATE_DATTA is not a setting",
		"TIDEGATE_TRIAL_SHEDDING=yess":                   "TIDEGATE_TRIAL_SHEDDING: must be true or false",
		"TIDEGATE_TRACING_RATIO=half":                    "TIDEGATE_TRACING_RATIO: must be a number",
		"TIDEGATE_POSTGRES_URL=postgres://u:hunter2@h/d": "TIDEGATE_POSTGRES_URL holds a password",
		"TIDEGATE_=x":                                    "is not a setting",
	} {
		if _, err := app.LoadConfig("", []string{env}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", env, err)
		}
	}
	// The value of a variable may be a secret's place or worse: it is not repeated.
	if _, err := app.LoadConfig("", []string{"TIDEGATE_LIMITS_BULK=hunter2"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// Every setting that cannot work is named, all of them at once.
func TestValidateNamesEverySetting(t *testing.T) {
	for key, change := range map[string]func(*app.Config){
		"data":               func(c *app.Config) { c.Data = "" },
		"http":               func(c *app.Config) { c.HTTP = "8080" },
		"admin":              func(c *app.Config) { c.Admin = "" },
		"tls":                func(c *app.Config) { c.TLS.Key = "key.pem" },
		"tls.minVersion":     func(c *app.Config) { c.TLS.MinVersion = "1.1" },
		"intake.maxFacts":    func(c *app.Config) { c.Intake.MaxFacts = 1<<16 + 1 },
		"intake.maxBytes":    func(c *app.Config) { c.Intake.MaxBytes = 1000 },
		"intake.maxAge":      func(c *app.Config) { c.Intake.MaxAge = 0 },
		"intake.waitLimit":   func(c *app.Config) { c.Intake.WaitLimit = -1 },
		"intake.refill":      func(c *app.Config) { c.Intake.Refill = 0 },
		"intake":             func(c *app.Config) { c.Intake.DiskFloorMB = -1 },
		"limits.connections": func(c *app.Config) { c.Limits.Connections = 0 },
		"limits.handshakes":  func(c *app.Config) { c.Limits.Handshakes = 0 },
		"limits.bulk":        func(c *app.Config) { c.Limits.Bulk = 0 },
		"durability.require": func(c *app.Config) { c.Durable.Require = "best-effort" },
		"log.format":         func(c *app.Config) { c.Log.Format = "xml" },
		"log.level":          func(c *app.Config) { c.Log.Level = "loud" },

		"rpc":                       func(c *app.Config) { c.RPC = "0.0.0.0:8081" },
		"postgres.url":              func(c *app.Config) { c.Postgres.URL = "host=db user=u" },
		"postgres.vaultURL":         func(c *app.Config) { c.Postgres.URL, c.Postgres.VaultURL = "postgres://h/d", "postgres://h" },
		"postgres":                  func(c *app.Config) { c.Postgres.JournalURL, c.Postgres.VaultURL = "postgres://h/d", "postgres://h/d" },
		"postgres.connections":      func(c *app.Config) { c.Postgres.Connections = 1 },
		"postgres.connectTimeout":   func(c *app.Config) { c.Postgres.ConnectTimeout = 0 },
		"postgres.statementTimeout": func(c *app.Config) { c.Postgres.StatementTimeout = 0 },
		"etcd":                      func(c *app.Config) { c.Etcd.User = "root" },
		"etcd.endpoints":            func(c *app.Config) { c.Etcd.Endpoints = []string{"http://etcd"} },
		"etcd.dialTimeout":          func(c *app.Config) { c.Etcd.DialTimeout = 0 },
		"trial":                     func(c *app.Config) { c.Trial.Rate = -1 },
		"trial.endpoints":           func(c *app.Config) { c.Trial.Endpoints = []string{"trial:8081"} },
		"trial.advertise":           func(c *app.Config) { c.Trial.Advertise = "trial" },
		"trial.timeout":             func(c *app.Config) { c.Trial.Timeout = 0 },
		"rpcTLS":                    func(c *app.Config) { c.RPCTLS.Cert, c.RPCTLS.Key = "c", "k" },
		"tracing.endpoint":          func(c *app.Config) { c.Tracing.Endpoint = "localhost:4318" },
		"tracing.ratio":             func(c *app.Config) { c.Tracing.Ratio = 1.5 },
	} {
		c := app.NewDefaultConfig()
		change(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), "this configuration cannot work: "+key+": ") || strings.Count(err.Error(), "\n") != 1 {
			t.Errorf("%s: %v", key, err)
		}
	}
	c := app.NewDefaultConfig()
	c.Data, c.HTTP, c.Log.Level = "", "", ""
	if err := c.Validate(); err == nil || strings.Count(err.Error(), ";") != 2 {
		t.Errorf("three at once: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	for key, change := range map[string]func(*app.Config){
		"http: ":               func(c *app.Config) { c.HTTP = ":80" },
		"admin: ":              func(c *app.Config) { c.Admin = "[::]:8082" },
		"anchors: ":            func(c *app.Config) { c.Anchors = []string{"none"} },
		"durability.require: ": func(c *app.Config) { c.Durable.Require = "demo" },
		"intake.burst: ":       func(c *app.Config) { c.Intake.Burst = 0 },
		"intake.waitLimit: ":   func(c *app.Config) { c.Intake.WaitLimit = time.Minute },

		"postgres.url: reports":       func(c *app.Config) { c.Postgres.URL = "postgres://u@db/t?sslmode=disable" },
		"postgres.url: sslmode=requi": func(c *app.Config) { c.Postgres.URL = "postgres://u@db/t?sslmode=require" },
		"postgres.journalURL: report": func(c *app.Config) { c.Postgres.JournalURL = "postgres://u@localhost:1,db:2/d" },
		"postgres.storeURL: holds":    func(c *app.Config) { c.Postgres.StoreURL = "postgres://u:p@localhost/t" },
		"postgres.statementTimeout: ": func(c *app.Config) { c.Postgres.URL, c.Postgres.StatementTimeout = "postgres:///t", time.Minute },
		"etcd.endpoints: ":            func(c *app.Config) { c.Etcd.Endpoints = []string{"etcd:2379"} },
		"tracing.endpoint: ":          func(c *app.Config) { c.Tracing.Endpoint = "http://otel:4318" },
	} {
		c := app.NewDefaultConfig()
		change(&c)
		if w := c.Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], key) {
			t.Errorf("%s: %q", key, w)
		}
	}
	c := app.NewDefaultConfig()
	c.HTTP, c.TLS.Cert, c.TLS.Key, c.Admin = ":443", "c", "k", "localhost:1"
	c.Postgres.URL, c.Postgres.VaultURL = "postgres://u@127.0.0.1:1,[::1]:2/d?target_session_attrs=read-write", "postgres://u@a,b/d?sslmode=verify-full"
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("nothing unwise: %q", w)
	}
}
