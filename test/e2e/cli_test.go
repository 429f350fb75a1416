package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/test/server"
)

// commands are all of them, as a user types them.
var commands = [][]string{
	{"demo"},
	{"serve"},
	{"seed"},
	{"token"},
	{"token", "participant"},
	{"token", "staff"},
	{"token", "relay"},
	{"load"},
	{"verify"},
	{"verify", "journal"},
	{"verify", "receipt"},
	{"rebuild"},
	{"backup"},
	{"restore"},
	{"keys"},
	{"keys", "list"},
	{"keys", "rotate"},
	{"keys", "retire"},
	{"keys", "retire-tokens"},
	{"keys", "init"},
	{"keys", "issue"},
	{"keys", "pack"},
	{"keys", "install"},
	{"migrate"},
	{"transfer"},
	{"ship"},
	{"era"},
	{"era", "open"},
	{"config"},
	{"config", "default"},
	{"config", "check"},
	{"config", "doc"},
	{"status"},
	{"version"},
}

func TestHelp(t *testing.T) {
	t.Parallel()
	all, errs, code := tidegate(t)
	if code != 0 || errs != "" || !strings.Contains(all, "tidegate demo") {
		t.Fatalf("tidegate alone: exit %d\n%s%s", code, all, errs)
	}
	if help, _, _ := tidegate(t, "--help"); help != all {
		t.Error("tidegate alone prints something else than --help")
	}
	for command, flags := range map[string][]string{
		"verify": {"--data", "--acks", "--no-rebuild", "--anchor", "--json"},
		"demo":   {"Default: data/demo."},
		"serve":  {"Default: data."},
	} {
		out, _, _ := tidegate(t, command, "--help")
		out = strings.Join(strings.Fields(out), " ")
		for _, f := range flags {
			if !strings.Contains(out, f) {
				t.Errorf("%s --help does not show %s:\n%s", command, f, out)
			}
		}
	}
	for _, c := range commands {
		name := strings.Join(c, " ")
		out, errs, code := tidegate(t, append(c, "--help")...)
		if code != 0 || errs != "" || !strings.HasPrefix(out, "Usage: tidegate "+name) {
			t.Errorf("%s --help: exit %d\n%s%s", name, code, out, errs)
		}
		// A group of commands leads on to them; every other help has an example to copy.
		group := strings.Contains(out, "\nCommands:\n")
		if !group && !strings.Contains(out, "\nExample:\n\n    tidegate "+name) && name != "verify journal" {
			t.Errorf("%s --help has no example on a line of its own:\n%s", name, out)
		}
		if !strings.Contains(all, "\n  "+c[0]+" ") {
			t.Errorf("tidegate --help does not list %s", c[0])
		}
	}
}

// A mistake is told in a line, with a hint to the help that explains it.
func TestWrongUse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		says string
		hint string
	}{
		{[]string{"srve"}, "srve", "tidegate --help"},
		{[]string{"--nonsense"}, "--nonsense", "tidegate --help"},
		{[]string{"serve", "--prot", "1"}, "--prot", "tidegate serve --help"},
		{[]string{"seed", "--participants", "many"}, "--participants", "tidegate seed --help"},
		{[]string{"seed", "--participants", "0"}, "between 1 and 1000000", ""},
		{[]string{"demo", "--participants=-1"}, "between 1 and 1000000", ""},
		{[]string{"token"}, "participant", "tidegate token --help"},
		{[]string{"token", "participant"}, "--patient", "tidegate token participant --help"},
		{[]string{"load"}, "--target", "tidegate load --help"},
		{[]string{"load", "--target", "http://127.0.0.1:1", "--shape", "flat"}, "wave", "tidegate load --help"},
		{[]string{"verify", "receipt", "-"}, "--keys", "tidegate verify receipt --help"},
		{[]string{"keys", "retire", "--data", "x"}, "key-id", "tidegate keys retire --help"},
		{[]string{"keys", "retire", "x", "--reason", "bored"}, "rotated", "tidegate keys retire --help"},
		{[]string{"backup"}, "--to", "tidegate backup --help"},
		{[]string{"config", "check", "a", "b"}, "b", "tidegate config check --help"},
	} {
		text := refusal{t: t, code: 2, says: c.says}.of(c.args...)
		if c.hint != "" && !strings.HasSuffix(text, "\nTry: "+c.hint+"\n") {
			t.Errorf("%v: no hint to %s: %s", c.args, c.hint, text)
		}
	}
}

// Whatever prints a result prints it as JSON too, and nothing beside it; what
// moves on a terminal does not stand in a file.
func TestJSON(t *testing.T) {
	parallel(t)
	data, dir := place(t), t.TempDir()
	parse := func(args ...string) object {
		t.Helper()
		out, errs, code := tidegate(t, append(args, "--json")...)
		var o object
		if err := json.Unmarshal([]byte(out), &o); err != nil || code != 0 || len(o) == 0 {
			t.Fatalf("%v: exit %d, %v\n%s%s", args, code, err, out, errs)
		}
		if strings.ContainsAny(out+errs, "\r\x1b") {
			t.Errorf("%v: progress in a file: %q", args, errs)
		}
		return o
	}
	parse("seed", "--data", data, "--participants", "20")
	parse("rebuild", "--data", data)
	rotated := parse("keys", "rotate", "--data", data)
	if o := parse("keys", "list", "--data", data); len(o["keys"].([]any)) != 2 || o["root"] == nil {
		t.Errorf("keys list: %v", o)
	}
	s := server.Start(t, server.Options{Serve: true, Data: data})
	if o := parse("status", "--data", data); o["ready"] != true {
		t.Errorf("status: %v", o)
	}
	parse("status", "--admin", s.Admin)
	acks := filepath.Join(dir, "acks.ndjson")
	if o := parse("load", "--target", s.URL, "--data", data, "--phones", "20", "--over", "500ms", "--retry", "--acks", acks); o["acknowledged"] != float64(20) {
		t.Errorf("load: %v", o)
	}
	backup := filepath.Join(dir, "backup")
	parse("backup", "--data", data, "--to", backup)
	parse("restore", "--from", backup, "--data", filepath.Join(dir, "restored"))
	if o := parse("verify", "--data", data, "--acks", acks); o["ok"] != true || o["lost"] != float64(0) {
		t.Errorf("verify: %v", o)
	}
	parse("verify", "--data", backup) // no tables and no anchor: notes, but not among the JSON
	o := parse("verify", "--data", data, "--no-rebuild", "--anchor", "none")
	for _, name := range []string{"lost", "altered"} {
		if _, said := o[name]; said {
			t.Errorf("verify without --acks claims %s: %v", name, o[name])
		}
	}

	receipt := (user{t, s, s.Token("P-000001", "T001")}).post("/v1/patient/report", http.StatusOK, reportBody("P-000001", "T001", 1, nil)).text("receipt")
	keys := filepath.Join(dir, "keys.json")
	if err := os.WriteFile(keys, []byte(must(t, "keys", "list", "--data", data, "--json")), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "receipt")
	if err := os.WriteFile(file, []byte(receipt), 0o600); err != nil {
		t.Fatal(err)
	}
	ring := keysOf(t, data)
	if o := parse("verify", "receipt", file, "--keys", keys, "--root", ring.root); o["valid"] != true || o["patientId"] != "P-000001" || o["keyId"] != rotated["keyId"] {
		t.Errorf("verify receipt: %v", o)
	}
	parse("keys", "retire", ring.ids[0], "--data", data)
	parse("version")
	parse("config", "check")
	s.Stop()

	// A findings exit still prints JSON.
	out, _, code := tidegate(t, "verify", "--data", backup, "--acks", acks+"2", "--json")
	if code != 1 || out != "" {
		t.Errorf("acks that are not there: exit %d %s", code, out)
	}
}

func TestConfigCommands(t *testing.T) {
	t.Parallel()
	for _, c := range []string{"default", "doc"} {
		path := filepath.Join(t.TempDir(), c+".yaml")
		if err := os.WriteFile(path, []byte(must(t, "config", c)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := must(t, "config", "check", path); out != "ok\n" {
			t.Errorf("what config %s prints: %s", c, out)
		}
	}
	path := filepath.Join(t.TempDir(), "unwise.yaml")
	unwise := "http: 0.0.0.0:80\nadmin: ':8082'\nanchors: [none]\ndurability: {require: demo}\nintake: {burst: 0, waitLimit: 40s}\n"
	if err := os.WriteFile(path, []byte(unwise), 0o600); err != nil {
		t.Fatal(err)
	}
	out := must(t, "config", "check", path)
	for _, key := range []string{"http: ", "admin: ", "anchors: ", "durability.require: ", "intake.burst: ", "intake.waitLimit: "} {
		if !strings.Contains(out, "warning: "+key) {
			t.Errorf("no warning about %s\n%s", key, out)
		}
	}
	if !strings.HasSuffix(out, "\nok\n") || strings.Count(out, "\n") != 7 {
		t.Errorf("config check of a legal file:\n%s", out)
	}
}
