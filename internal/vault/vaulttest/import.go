package vaulttest

import (
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/vault"
)

// other is a second, empty vault.
func (f *fixture) other(t *testing.T) vault.Vault {
	t.Helper()
	return f.mustOpen(t, filepath.Join(t.TempDir(), "other.db"))
}

func exported(t *testing.T, v vault.Vault) []vault.Credential {
	t.Helper()
	all, err := v.Export(t.Context())
	if err != nil {
		t.Fatalf("export: %v", err)
	}
	return all
}

// testImport: what comes out of one vault is what another one then holds,
// however many there are, revoked ones too.
func testImport(t *testing.T, f *fixture) {
	if got := exported(t, f); len(got) != 0 {
		t.Fatalf("an empty vault exports %d credentials", len(got))
	}
	const n = vault.MaxList + 5 // more than a page
	all := make([]vault.Credential, n)
	for i := range all {
		all[i] = credential(i)
		if i%3 == 0 {
			all[i].Revoked = start.Add(time.Duration(i) * time.Minute)
		}
	}
	shuffled := slices.Clone(all)
	slices.Reverse(shuffled)
	if err := f.Import(t.Context(), shuffled); err != nil {
		t.Fatalf("import: %v", err)
	}
	if got := exported(t, f); !slices.Equal(got, all) {
		t.Fatalf("exported %d credentials, and they are not the %d that were imported", len(got), n)
	}
	second := f.other(t)
	if err := second.Import(t.Context(), exported(t, f)); err != nil {
		t.Fatalf("import into a second vault: %v", err)
	}
	want(t, second, all[0])
	want(t, second, all[n-1])
	// It is a vault like any other.
	late := all[1]
	late.Revoked = start.Add(time.Hour)
	if err := second.RevokeCredential(t.Context(), late.ID, late.Revoked); err != nil {
		t.Fatal(err)
	}
	want(t, second, late)
	want(t, f, all[1])
}

func testImportAgain(t *testing.T, f *fixture) {
	all := []vault.Credential{credential(1), credential(2)}
	all[1].Revoked = start.Add(time.Hour)
	var wg sync.WaitGroup
	for range 4 { // at once, and again
		wg.Go(func() {
			for range 2 {
				if err := f.Import(t.Context(), all); err != nil {
					t.Errorf("the same again: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := exported(t, f); !slices.Equal(got, all) {
		t.Fatalf("after imports of the same: %+v", got)
	}
	revived := slices.Clone(all)
	revived[1].Revoked = time.Time{}
	for name, other := range map[string][]vault.Credential{
		"fewer": all[:1], "more": append(slices.Clone(all), credential(3)), "none": nil, "others": {credential(8), credential(9)}, "not revoked": revived,
	} {
		if err := f.Import(t.Context(), other); !errors.Is(err, vault.ErrNotEmpty) {
			t.Errorf("%s: got %v, want ErrNotEmpty", name, err)
		}
	}
	if got := exported(t, f); !slices.Equal(got, all) {
		t.Fatalf("refused imports changed it: %+v", got)
	}
}

// testImportRefuses: all or none.
func testImportRefuses(t *testing.T, f *fixture) {
	broken := credential(2)
	broken.SecretHash = [32]byte{}
	for name, all := range map[string][]vault.Credential{
		"one without a secret": {credential(1), broken},
		"one twice":            {credential(1), credential(2), credential(1)},
	} {
		if err := f.Import(t.Context(), all); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	if got := exported(t, f); len(got) != 0 {
		t.Errorf("refused imports left %d credentials", len(got))
	}
	f.create(t, 7)
	if err := f.Import(t.Context(), []vault.Credential{credential(1)}); !errors.Is(err, vault.ErrNotEmpty) {
		t.Errorf("into a vault in use: %v", err)
	}
}
