package app_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/test/server"
)

// A token key is replaced beside a server that goes on: old tokens stay valid
// until their key is destroyed.
func TestTokenKeys(t *testing.T) {
	s := server.Start(t, server.Options{Participants: 2})
	reads := func(token string, want int) {
		t.Helper()
		if code, body := get(t, s.URL+"/v1/patient/reports", token); code != want {
			t.Errorf("%d %s, want %d", code, body, want)
		}
	}
	old := s.Token("P-000001", "T001")
	refused(t, 1, "current one: let a newer key take over first (tidegate keys rotate --tokens)", "keys", "retire-tokens", "1", "--data", s.Data)
	if out := must(t, "keys", "rotate", "--tokens", "--data", s.Data); !strings.Contains(out, "token key 2") || strings.Contains(out, "keys issue") {
		t.Errorf("keys rotate --tokens says\n%s", out)
	}
	newer := s.Token("P-000001", "T001")
	reads(old, http.StatusOK)
	reads(newer, http.StatusOK)
	must(t, "keys", "retire-tokens", "1", "--data", s.Data)
	reads(old, http.StatusUnauthorized)
	reads(newer, http.StatusOK)
	refused(t, 1, "no token key 3", "keys", "retire-tokens", "3", "--data", s.Data)
	out := must(t, "keys", "list", "--data", s.Data)
	if !strings.Contains(out, "tokens   1  destroyed") || !strings.Contains(out, "tokens   2  in use") {
		t.Errorf("keys list says\n%s", out)
	}
	// And so it is after a start, and without a server.
	s.Stop()
	must(t, "keys", "rotate", "--tokens", "--data", s.Data, "--json")
	if out := must(t, "keys", "list", "--data", s.Data); !strings.Contains(out, "tokens   1  destroyed") || !strings.Contains(out, "tokens   3  in use") {
		t.Errorf("keys list says\n%s", out)
	}
}

// In a root folder it needs no journal, and reaches a process with its next keys.
func TestTokenKeysOfManyProcesses(t *testing.T) {
	dir := t.TempDir()
	root, gateway := filepath.Join(dir, "root"), filepath.Join(dir, "gateway-1")
	must(t, "keys", "init", "--data", root)
	issueKeys(t, root, gateway, "gateway-1")
	if out := must(t, "keys", "rotate", "--tokens", "--data", root); !strings.Contains(out, "tidegate keys issue --data "+root) {
		t.Errorf("keys rotate --tokens does not say that others have to hear of it:\n%s", out)
	}
	must(t, "keys", "retire-tokens", "1", "--data", root)
	refused(t, 1, "root folder", "keys", "rotate", "--tokens", "--data", gateway)
	if out := must(t, "keys", "list", "--data", gateway); !strings.Contains(out, "tokens   1  in use") {
		t.Errorf("before it was issued to again:\n%s", out)
	}
	issueKeys(t, root, gateway, "gateway-1")
	if out := must(t, "keys", "list", "--data", gateway); !strings.Contains(out, "tokens   1  destroyed") || !strings.Contains(out, "tokens   2  in use") {
		t.Errorf("after it was issued to again:\n%s", out)
	}
}
