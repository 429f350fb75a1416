package auth_test

import (
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
)

var now = time.Date(2026, 3, 1, 8, 30, 0, 0, time.UTC)

// newKeys makes the keys of an installation.
func newKeys(t testing.TB) (*auth.Keys, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	k, err := auth.InitKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k, dir
}

func load(t testing.TB, dir string) *auth.Keys {
	t.Helper()
	k, err := auth.LoadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func participantClaims() auth.Claims {
	return auth.Claims{
		Kind: auth.KindParticipant, Scope: auth.ScopeSubmit, Trial: "T001", Shard: 7,
		Participant: "P-000001", Device: "phone-1", Epoch: 3, Expires: now.Add(time.Hour),
	}
}

func relayClaims() auth.Claims {
	return auth.Claims{
		Kind: auth.KindRelay, Scope: auth.ScopeRelay, Trial: "T001", Relay: "clinic",
		Sites: []string{"S01", "S02"}, Expires: now.Add(time.Hour),
	}
}

func mint(t testing.TB, k *auth.Keys, c auth.Claims) string {
	t.Helper()
	token, err := k.Mint(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// unpack takes a token's bytes out of its text, and pack puts them back.
func unpack(t testing.TB, token string) (prefix string, b []byte) {
	t.Helper()
	prefix, text, _ := strings.Cut(token, "_")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return prefix + "_", b
}

func pack(prefix string, b []byte) string {
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}
