package vault_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/vault"
)

func credentials(n int) []vault.Credential {
	start := time.Date(2026, 3, 1, 8, 30, 0, 0, time.UTC)
	all := make([]vault.Credential, n)
	for i := range all {
		all[i] = vault.Credential{
			ID: fmt.Sprintf("%04d", i), StaffID: "staff", SecretHash: sha256.Sum256([]byte{byte(i)}),
			Created: start.Add(time.Duration(i) * time.Millisecond), Expires: start.Add(time.Hour),
		}
	}
	if n > 1 {
		all[1].Revoked = start.Add(time.Minute)
	}
	return all
}

func TestCopy(t *testing.T) {
	for _, n := range []int{0, 1, 50} {
		path := filepath.Join(t.TempDir(), "vault.copy")
		all := credentials(n)
		if err := vault.WriteCopy(path, all); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Fatalf("mode %v, %v", info.Mode(), err)
		}
		if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
			t.Fatalf("other files were left: %v", files)
		}
		got, err := vault.ReadCopy(path)
		if err != nil || !slices.Equal(got, all) {
			t.Fatalf("%d credentials came back as %d, %v", n, len(got), err)
		}
		if err := vault.WriteCopy(path, all); !errors.Is(err, vault.ErrExists) {
			t.Fatalf("over another: %v", err)
		}
	}
}

// TestDamagedCopy: a copy that is cut anywhere, or changed in any byte, is not
// taken for a whole one.
func TestDamagedCopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault.copy")
	if err := vault.WriteCopy(path, credentials(3)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := vault.ReadCopy(path)
		var sentence *vault.OpenError
		if err == nil || !errors.As(err, &sentence) {
			t.Fatalf("%s: %d credentials, %v", what, len(got), err)
		}
	}
	for i := range len(whole) - 1 { // without the last line feed it is whole
		refused(fmt.Sprintf("cut at %d", i), whole[:i])
		changed := bytes.Clone(whole)
		changed[i] ^= 1
		refused(fmt.Sprintf("byte %d changed", i), changed)
	}
	refused("more behind it", append(bytes.Clone(whole), "{}\n"...))
	if _, err := vault.ReadCopy(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
