// Package vaulttest is the conformance suite of vault.Vault: every adapter
// passes it against the real database.
package vaulttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/vault"
)

// Opener opens the vault at a path, and makes it there if it is new. Where a
// copy lies at the path, what is opened has its content. The suite closes what
// it opens.
type Opener func(ctx context.Context, path string) (vault.Vault, error)

// Run runs the suite.
func Run(t *testing.T, open Opener) {
	tests := []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"keeps what it was given", testKeeps},
		{"create again", testCreateAgain},
		{"refuses what makes no sense", testRefuses},
		{"revoke", testRevoke},
		{"revoke a staff member", testRevokeStaff},
		{"lists in order", testList},
		{"survives closing", testReopen},
		{"concurrent use", testConcurrent},
		{"cancelled calls", testCancelled},
		{"copy", testCopy},
		{"copy while writing", testCopyWhileWriting},
		{"export and import", testImport},
		{"import again", testImportAgain},
		{"import refuses", testImportRefuses},
		{"schema", testSchema},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &fixture{open: open, path: filepath.Join(t.TempDir(), "vault.db")}
			f.Vault = f.mustOpen(t, f.path)
			test.run(t, f)
		})
	}
}

type fixture struct {
	vault.Vault
	open Opener
	path string
}

func (f *fixture) mustOpen(t *testing.T, path string) vault.Vault {
	t.Helper()
	v, err := f.open(t.Context(), path)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

var start = time.Date(2026, 3, 1, 8, 30, 0, 123_000_000, time.UTC)

// credential makes the n-th one; every staff member has two in turn.
func credential(n int) vault.Credential {
	return vault.Credential{
		ID: fmt.Sprintf("%016x", n), StaffID: fmt.Sprintf("staff-%d", n/2), SecretHash: sha256.Sum256([]byte{byte(n), byte(n >> 8)}),
		Created: start.Add(time.Duration(n) * time.Second), Expires: start.Add(1000 * time.Hour),
	}
}

func (f *fixture) create(t *testing.T, n int) vault.Credential {
	t.Helper()
	c := credential(n)
	if err := f.CreateCredential(t.Context(), c); err != nil {
		t.Fatalf("create %d: %v", n, err)
	}
	return c
}

func want(t *testing.T, v vault.Vault, c vault.Credential) {
	t.Helper()
	got, err := v.Credential(t.Context(), c.ID)
	if err != nil {
		t.Fatalf("credential %s: %v", c.ID, err)
	}
	if got != c {
		t.Fatalf("credential %s: got %+v, want %+v", c.ID, got, c)
	}
}

func wantErr(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}

func testKeeps(t *testing.T, f *fixture) {
	_, err := f.Credential(t.Context(), "0000000000000001")
	wantErr(t, err, vault.ErrNotFound)
	c := credential(1)
	// Another zone and parts of a millisecond are not kept.
	given := c
	given.Created = c.Created.Add(999 * time.Microsecond).In(time.FixedZone("", 8*3600))
	if err := f.CreateCredential(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	want(t, f, c)
	_, err = f.Credential(t.Context(), "000000000000000")
	wantErr(t, err, vault.ErrNotFound)
}

func testCreateAgain(t *testing.T, f *fixture) {
	c := f.create(t, 1)
	if err := f.CreateCredential(t.Context(), c); err != nil {
		t.Fatalf("the same again: %v", err)
	}
	for name, change := range map[string]func(*vault.Credential){
		"secret":  func(c *vault.Credential) { c.SecretHash[0]++ },
		"staff":   func(c *vault.Credential) { c.StaffID = "other" },
		"expires": func(c *vault.Credential) { c.Expires = c.Expires.Add(time.Hour) },
	} {
		other := c
		change(&other)
		if err := f.CreateCredential(t.Context(), other); !errors.Is(err, vault.ErrExists) {
			t.Errorf("other %s: got %v, want ErrExists", name, err)
		}
	}
	want(t, f, c)
	// A repeat that comes late does not bring it back to life.
	c.Revoked = start.Add(time.Hour)
	if err := f.RevokeCredential(t.Context(), c.ID, c.Revoked); err != nil {
		t.Fatal(err)
	}
	again := c
	again.Revoked = time.Time{}
	if err := f.CreateCredential(t.Context(), again); err != nil {
		t.Fatalf("the same again after revoking: %v", err)
	}
	want(t, f, c)
}

func testRefuses(t *testing.T, f *fixture) {
	for name, change := range map[string]func(*vault.Credential){
		"no id":             func(c *vault.Credential) { c.ID = "" },
		"no staff":          func(c *vault.Credential) { c.StaffID = "" },
		"staff not ASCII":   func(c *vault.Credential) { c.StaffID = "Zoë" },
		"no secret":         func(c *vault.Credential) { c.SecretHash = [32]byte{} },
		"no creation":       func(c *vault.Credential) { c.Created = time.Time{} },
		"expired when made": func(c *vault.Credential) { c.Expires = c.Created },
		"revoked when made": func(c *vault.Credential) { c.Revoked = c.Created },
	} {
		c := credential(1)
		change(&c)
		if err := f.CreateCredential(t.Context(), c); err == nil {
			t.Errorf("%s: was kept", name)
		}
	}
	if list, err := f.Credentials(t.Context(), vault.CredentialQuery{}); err != nil || len(list) != 0 {
		t.Errorf("after refusals: %d credentials, %v", len(list), err)
	}
}

func testRevoke(t *testing.T, f *fixture) {
	wantErr(t, f.RevokeCredential(t.Context(), "none", start), vault.ErrNotFound)
	c, other := f.create(t, 1), f.create(t, 2)
	c.Revoked = start.Add(time.Hour)
	for i := range 3 { // the first time counts
		if err := f.RevokeCredential(t.Context(), c.ID, c.Revoked.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		want(t, f, c)
	}
	want(t, f, other)
}

func testRevokeStaff(t *testing.T, f *fixture) {
	a, b, other := f.create(t, 2), f.create(t, 3), f.create(t, 4) // 2 and 3 are of one person
	a.Revoked, b.Revoked = start.Add(time.Hour), start.Add(2*time.Hour)
	if err := f.RevokeCredential(t.Context(), a.ID, a.Revoked); err != nil {
		t.Fatal(err)
	}
	for _, wantN := range []int{1, 0} {
		n, err := f.RevokeStaff(t.Context(), b.StaffID, b.Revoked)
		if err != nil || n != wantN {
			t.Fatalf("revoked %d, %v; want %d", n, err, wantN)
		}
	}
	for _, c := range []vault.Credential{a, b, other} {
		want(t, f, c)
	}
	if n, err := f.RevokeStaff(t.Context(), "nobody", start); err != nil || n != 0 {
		t.Fatalf("nobody's: %d, %v", n, err)
	}
}

func testList(t *testing.T, f *fixture) {
	const n = 20
	for i := n - 1; i >= 0; i-- {
		f.create(t, i)
	}
	for _, limit := range []int{1, 3, 7, n, n + 1, 0, -1, vault.MaxList + 1} {
		next, after := 0, ""
		for {
			page, err := f.Credentials(t.Context(), vault.CredentialQuery{After: after, Limit: limit})
			if err != nil {
				t.Fatal(err)
			}
			if limit > 0 && len(page) > limit {
				t.Fatalf("limit %d: a page of %d", limit, len(page))
			}
			if len(page) == 0 {
				break
			}
			for _, c := range page {
				if c != credential(next) {
					t.Fatalf("limit %d: got %+v, want number %d", limit, c, next)
				}
				next++
			}
			after = page[len(page)-1].ID
		}
		if next != n {
			t.Fatalf("limit %d: listed %d of %d", limit, next, n)
		}
	}
	mine, err := f.Credentials(t.Context(), vault.CredentialQuery{StaffID: "staff-3"})
	if err != nil || len(mine) != 2 || mine[0] != credential(6) || mine[1] != credential(7) {
		t.Fatalf("of one person: %+v, %v", mine, err)
	}
	mine, err = f.Credentials(t.Context(), vault.CredentialQuery{StaffID: "staff-3", After: credential(6).ID})
	if err != nil || len(mine) != 1 || mine[0] != credential(7) {
		t.Fatalf("of one person, second page: %+v, %v", mine, err)
	}
	if none, err := f.Credentials(t.Context(), vault.CredentialQuery{StaffID: "staff"}); err != nil || len(none) != 0 {
		t.Fatalf("of nobody: %+v, %v", none, err)
	}
}

func testReopen(t *testing.T, f *fixture) {
	c, d := f.create(t, 1), f.create(t, 2)
	d.Revoked = start.Add(time.Hour)
	if err := f.RevokeCredential(t.Context(), d.ID, d.Revoked); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Credential(t.Context(), c.ID); err == nil || errors.Is(err, vault.ErrNotFound) {
			t.Fatalf("a closed vault answered: %v", err)
		}
		f.Vault = f.mustOpen(t, f.path)
		want(t, f, c)
		want(t, f, d)
	}
}

func testConcurrent(t *testing.T, f *fixture) {
	const workers, each = 8, 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				c := credential(1000 + i) // all workers make the same ones, and revoke them
				if err := f.CreateCredential(t.Context(), c); err != nil {
					t.Errorf("create: %v", err)
				}
				if got, err := f.Credential(t.Context(), c.ID); err != nil || got.SecretHash != c.SecretHash {
					t.Errorf("what was just made: %+v, %v", got, err)
				}
				if err := f.RevokeCredential(t.Context(), c.ID, start.Add(time.Duration(w+1)*time.Hour)); err != nil {
					t.Errorf("revoke: %v", err)
				}
			}
		})
	}
	wg.Wait()
	list, err := f.Credentials(t.Context(), vault.CredentialQuery{})
	if err != nil || len(list) != each {
		t.Fatalf("%d credentials, %v; want %d", len(list), err, each)
	}
	for _, c := range list {
		if c.Revoked.IsZero() {
			t.Errorf("credential %s is not revoked", c.ID)
		}
	}
}

func testCancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, f.CreateCredential(ctx, credential(1)), context.Canceled)
	_, err := f.Credential(ctx, "0000000000000001")
	wantErr(t, err, context.Canceled)
	f.create(t, 1) // and goes on working
	want(t, f, credential(1))
}

func testCopy(t *testing.T, f *fixture) {
	c := f.create(t, 1)
	path := filepath.Join(t.TempDir(), "copy of vault.db") // a blank in the name too
	if err := f.CopyTo(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode of the copy: %v, %v", info.Mode(), err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Fatalf("the copy left other files: %v", files)
	}
	f.create(t, 2) // after the copy, so not in it
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, f.CopyTo(t.Context(), path), vault.ErrExists)
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Fatalf("a copy that exists was touched: %v", err)
	}
	if err := f.CopyTo(t.Context(), filepath.Join(t.TempDir(), "none", "copy.db")); err == nil {
		t.Fatal("a copy into a folder that is not there")
	}
	copied := f.mustOpen(t, path)
	want(t, copied, c)
	_, err = copied.Credential(t.Context(), credential(2).ID)
	wantErr(t, err, vault.ErrNotFound)
	if err := copied.CreateCredential(t.Context(), credential(3)); err != nil {
		t.Fatalf("a restored copy cannot be written: %v", err)
	}
}

// testCopyWhileWriting: a copy is one moment of a sequence: numbers 0 to n-1
// for some n, never with a hole.
func testCopyWhileWriting(t *testing.T, f *fixture) {
	dir := t.TempDir()
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for ; n < 5000; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := f.CreateCredential(t.Context(), credential(n)); err != nil {
				t.Errorf("write during a copy: %v", err)
				return
			}
		}
	}()
	const copies = 3
	for i := range copies {
		if err := f.CopyTo(t.Context(), filepath.Join(dir, fmt.Sprint(i))); err != nil {
			t.Errorf("copy while writing: %v", err)
		}
	}
	close(stop)
	written := <-done
	for i := range copies {
		copied := f.mustOpen(t, filepath.Join(dir, fmt.Sprint(i)))
		n, after := 0, ""
		for {
			page, err := copied.Credentials(t.Context(), vault.CredentialQuery{After: after})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, c := range page {
				if c != credential(n) {
					t.Fatalf("copy %d: number %d is missing or different", i, n)
				}
				n++
			}
			after = page[len(page)-1].ID
		}
		if n > written {
			t.Fatalf("copy %d has %d credentials, %d were written", i, n, written)
		}
	}
}

func testSchema(t *testing.T, f *fixture) {
	s, err := f.Schema(t.Context())
	if err != nil || s.Version == 0 || s.Version != s.Known {
		t.Fatalf("schema %+v, %v", s, err)
	}
}
