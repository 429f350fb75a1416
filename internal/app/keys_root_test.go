package app_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/test/services"
)

// commandsThatWrite are those that would begin a journal of their own beside
// keys whose journal is elsewhere, where nobody hears what they record.
func commandsThatWrite(data string) [][]string {
	return [][]string{
		{"keys", "retire", "0123456789abcdef", "--data", data, "--reason", "compromised"},
		{"keys", "rotate", "--data", data},
		{"token", "staff", "--data", data, "--role", "monitor", "--name", "eve"},
		{"seed", "--data", data, "--participants", "1"},
		{"rebuild", "--data", data},
		{"era", "open", "--data", data, "--reason", "x"},
		{"serve", "--data", data, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--rpc", "none"},
	}
}

func TestRootFolderBeginsNoJournal(t *testing.T) {
	dir := t.TempDir()
	root, bundle := filepath.Join(dir, "root"), filepath.Join(dir, "gateway-1")
	mustRun(t, "keys", "init", "--data", root)
	check := func(data, sentence string, commands [][]string) {
		t.Helper()
		for _, c := range commands {
			out, errs, code := run(t, c...)
			if code != 1 || !strings.Contains(errs, sentence) || !strings.Contains(errs, "--config FILE") || strings.Contains(out, "is retired") {
				t.Errorf("tidegate %v: exit %d, %s%s, must say %q", c, code, out, errs, sentence)
			}
			if files, _ := filepath.Glob(filepath.Join(data, "*.db*")); files != nil {
				t.Fatalf("tidegate %v made %v", c, files)
			}
		}
	}
	check(root, "this root folder has no journal", commandsThatWrite(root))
	id := issueKeys(t, root, bundle, "gateway-1").KeyID
	check(bundle, "issued to gateway-1", commandsThatWrite(bundle))

	// A folder that keys were issued from is a root folder, however it was made;
	// one with bare keys may be a first start that was cut short.
	if err := os.Remove(filepath.Join(root, "root-folder")); err != nil {
		t.Fatal(err)
	}
	check(root, "this root folder has no journal", commandsThatWrite(root))
	cut := filepath.Join(dir, "cut")
	if _, err := auth.InitKeys(filepath.Join(cut, "keys")); err != nil {
		t.Fatal(err)
	}
	check(cut, "has keys and no journal", slices.DeleteFunc(commandsThatWrite(cut), func(c []string) bool { return c[0] == "serve" || c[0] == "seed" }))
	mustRun(t, "seed", "--data", cut, "--participants", "1")

	// What issue prints as the next command is one that works.
	out := mustRun(t, "keys", "issue", "--data", root, "--to", bundle, "--name", "gateway-1")
	if !strings.Contains(out, "tidegate keys retire "+id+" --data "+root+" --config FILE\n") {
		t.Errorf("keys issue says\n%s", out)
	}
}

// A folder whose journal went to PostgreSQL answers for it no more.
func TestTransferredFolderIsNoJournal(t *testing.T) {
	pg := services.SharedPostgres(t)
	dir := filepath.Join(t.TempDir(), "data")
	must(t, "seed", "--data", dir, "--participants", "3")
	url := pg.NewDatabase(t)
	config := file(t, "postgres:\n  url: "+url+"\n")
	out := must(t, "transfer", "--from", dir, "--config", config)
	for _, c := range append(commandsThatWrite(dir), []string{"keys", "list", "--data", dir}) {
		if _, errs, code := tidegate(c...); code != 1 || !strings.Contains(errs, "went to") || !strings.Contains(errs, "--config FILE") {
			t.Errorf("tidegate %v: exit %d, %s", c, code, errs)
		}
	}
	// The proof works as it is printed.
	proof := regexp.MustCompile(`(?m)^  tidegate (verify .*)$`).FindAllStringSubmatch(out, -1)
	if len(proof) != 2 || !strings.Contains(out, "serve gateway --data gateway-1 --config "+config) {
		t.Fatalf("transfer says\n%s", out)
	}
	if !strings.Contains(proof[1][1], "--config "+config) || strings.Contains(proof[1][1], "--journal") {
		t.Errorf("the proof is %s", proof[1][1])
	}
	if out := must(t, strings.Fields(strings.ReplaceAll(proof[1][1], "'", ""))...); !strings.Contains(out, "OK") && !strings.Contains(out, "frames") {
		t.Errorf("the proof says\n%s", out)
	}
}
