package auth_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// proof is a statement signed by the current key, and its check by an auditor
// who has the certificates and the root's fingerprint.
func checkProof(t *testing.T, k *auth.Keys, signer *receipt.Signer, retired *receipt.Retirement) error {
	t.Helper()
	fact := epro.Envelope{Kind: epro.KindReport, Actor: epro.Actor{Type: epro.ActorParticipant}, OccurredAt: now, ReceivedAt: now}
	env, err := fact.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	header := journal.Header{Count: 1, Root: epro.Leaf(env)}
	r := receipt.Receipt{Class: journal.ClassLocalFsync, KeyID: signer.KeyID(), Header: header, Envelope: env}
	r.Signature = signer.Sign(header.Hash(), r.Class)
	certs := k.Certificates()
	for i := range certs {
		if retired != nil && certs[i].KeyID == retired.KeyID {
			certs[i].Retired = retired
		}
	}
	set, err := receipt.NewKeySet(receipt.NewKeys(k.RootPublic(), certs...), k.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	return r.Check(set)
}

func TestRotation(t *testing.T) {
	k, dir := newKeys(t)
	old := k.Signer()
	if err := checkProof(t, k, old, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Retire(old.KeyID(), receipt.RetiredRotated); err == nil {
		t.Error("the key in use was retired")
	}
	cert, err := k.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if k.Signer() != old {
		t.Error("the new key signs before the journal can know it")
	}
	if got := load(t, dir).Signer().KeyID().String(); got != cert.KeyID {
		t.Errorf("after a restart %s signs, not the newest key", got)
	}
	id, err := receipt.ParseKeyID(cert.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	for _, early := range []receipt.KeyID{old.KeyID(), id} {
		if _, err := k.Retire(early, receipt.RetiredRotated); err == nil {
			t.Errorf("key %s was retired before the new one took over", early)
		}
	}
	if err := k.UseSigningKey(id); err != nil {
		t.Fatal(err)
	}
	if k.Signer().KeyID() != id {
		t.Error("the new key does not sign")
	}
	for _, wrong := range []receipt.KeyID{old.KeyID(), {}} {
		if err := k.UseSigningKey(wrong); err == nil {
			t.Errorf("key %s took over", wrong)
		}
	}
	if _, err := k.Retire(receipt.KeyID{}, receipt.RetiredRotated); err == nil {
		t.Error("an unknown key was retired")
	}
	if _, err := k.Retire(old.KeyID(), "because"); err == nil {
		t.Error("retired for an unknown reason")
	}
	again := load(t, dir)
	if fmt.Sprint(again.Certificates()) != fmt.Sprint(k.Certificates()) || len(again.Certificates()) != 2 {
		t.Errorf("certificates after a restart: %v", again.Certificates())
	}
	for reason, valid := range map[string]bool{receipt.RetiredRotated: true, receipt.RetiredCompromised: false} {
		retired, err := k.Retire(old.KeyID(), reason)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkProof(t, again, old, &retired); (err == nil) != valid {
			t.Errorf("old key's proof after it was retired as %s: %v", reason, err)
		}
		if err := checkProof(t, again, k.Signer(), &retired); err != nil {
			t.Errorf("new key's proof: %v", err)
		}
	}
}

func TestRootOffline(t *testing.T) {
	k, dir := newKeys(t)
	away := filepath.Join(t.TempDir(), "root.key")
	if err := os.Rename(filepath.Join(dir, "root.key"), away); err != nil {
		t.Fatal(err)
	}
	served := load(t, dir)
	if served.Fingerprint() != k.Fingerprint() || checkProof(t, served, served.Signer(), nil) != nil {
		t.Error("does not serve without the root key")
	}
	for _, keys := range []*auth.Keys{k, served} {
		if err := keys.RootOnline(); !errors.Is(err, auth.ErrRootOffline) {
			t.Errorf("root online: %v", err)
		}
		if _, err := keys.NewSigningKey(); !errors.Is(err, auth.ErrRootOffline) || !strings.Contains(err.Error(), "put root.key back") {
			t.Errorf("certifying: %v", err)
		}
	}
	if n := len(load(t, dir).Certificates()); n != 1 {
		t.Errorf("%d signing keys after a refusal", n)
	}
	if err := os.Rename(away, filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := served.NewSigningKey(); err != nil { // without a restart
		t.Errorf("with the root key back: %v", err)
	}
}
