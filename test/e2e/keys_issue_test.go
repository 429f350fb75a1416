package e2e_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/test/server"
)

// A data folder becomes the root folder of many processes while its server
// goes on: keys are issued from it, listed, and retired through the server.
func TestKeysIssuedBesideAServer(t *testing.T) {
	parallel(t)
	s := server.Start(t, server.Options{Data: place(t), Participants: 1})
	before := keysOf(t, s.Data)
	var issued struct{ KeyID, Root string }
	out := must(t, "keys", "issue", "--data", s.Data, "--to", filepath.Join(t.TempDir(), "gateway-1"), "--name", "gateway-1", "--json")
	if err := json.Unmarshal([]byte(out), &issued); err != nil {
		t.Fatal(err)
	}
	if issued.Root != before.root {
		t.Errorf("issued under root %s, the server's is %s", issued.Root, before.root)
	}
	line := func() string {
		for l := range strings.Lines(must(t, "keys", "list", "--data", s.Data)) {
			if strings.Contains(l, issued.KeyID) {
				return l
			}
		}
		return ""
	}
	if l := line(); !strings.Contains(l, "issued to gateway-1") {
		t.Errorf("listed as %q", l)
	}
	// The server's own rotation is not confused by keys that are not its own.
	must(t, "keys", "rotate", "--data", s.Data)
	if now := keysOf(t, s.Data); now.current == issued.KeyID || now.current == before.current {
		t.Errorf("signs with %s", now.current)
	}
	// Its process never started, so no fact names the key yet; retired it is all the same, and for good.
	must(t, "keys", "retire", issued.KeyID, "--data", s.Data, "--reason", "compromised")
	if l := line(); !strings.Contains(l, "retired") || !strings.Contains(l, "compromised") || !strings.Contains(l, "issued to gateway-1") {
		t.Errorf("after it was retired, listed as %q", l)
	}
	must(t, "keys", "retire", issued.KeyID, "--data", s.Data, "--reason", "compromised")
	s.Stop()
	clean(t, s.Data)
}
