package epro_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
)

func TestBodyDigestIsOfSaltAndBody(t *testing.T) {
	salt := epro.NewSalt()
	for _, body := range []string{"", "{}", string(make([]byte, epro.MaxBodyBytes))} {
		want := epro.Digest(sha256.Sum256(append(append([]byte{}, salt[:]...), body...)))
		if got := epro.BodyDigest(salt, []byte(body)); got != want {
			t.Errorf("%d bytes: %s, must be %s", len(body), got, want)
		}
	}
	if other := epro.NewSalt(); epro.BodyDigest(salt, nil) == epro.BodyDigest(other, nil) {
		t.Error("two salts gave one digest")
	}
}

func TestMeaningIsKeyed(t *testing.T) {
	key, other := epro.MeaningKey{1}, epro.MeaningKey{2}
	m := hmac.New(sha256.New, key[:])
	m.Write([]byte("score 7"))
	if got := epro.ReportMeaning(key, []byte("score 7")); got != epro.Digest(m.Sum(nil)) {
		t.Errorf("not HMAC-SHA-256: %s", got)
	}
	if epro.ReportMeaning(key, []byte("score 7")) == epro.ReportMeaning(other, []byte("score 7")) {
		t.Error("two trials' keys gave one digest: an erased answer could be looked up in another trial")
	}
	if epro.PlainMeaning([]byte("{}")) != epro.Digest(sha256.Sum256([]byte("{}"))) {
		t.Error("the meaning of a fact's body is not its SHA-256")
	}
}

func TestDigestText(t *testing.T) {
	d := epro.Digest{0xab}
	if d.String() != "ab"+strings.Repeat("0", 62) || d.IsZero() || !(epro.Digest{}).IsZero() {
		t.Errorf("%s", d)
	}
}
