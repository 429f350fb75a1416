package epro_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/epro"
)

func TestUUIDRoundTripInEitherCase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := epro.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		for _, s := range []string{u.String(), strings.ToUpper(u.String())} {
			got, err := epro.ParseUUID(s)
			if err != nil || got != u {
				t.Fatalf("%s: %v, %v", s, got, err)
			}
		}
	})
}

func TestUUIDForm(t *testing.T) {
	const good = "7b0c1f6e-3a5d-4c1e-9d5b-0a4f6f2f9a11"
	if _, err := epro.ParseUUID(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, c := range []byte{'g', '-', ' ', 0, '{', 0xff, '/', ':', '@', 'G', '`'} {
			s := good[:i] + string([]byte{c}) + good[i+1:]
			if _, err := epro.ParseUUID(s); err == nil && s != good {
				t.Errorf("%q was taken", s)
			}
		}
	}
	for _, s := range []string{"", good[:35], good + "0", "{" + good + "}", "urn:uuid:" + good, strings.ReplaceAll(good, "-", ""), strings.Repeat("-", 36)} {
		if _, err := epro.ParseUUID(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestUUIDInJSON(t *testing.T) {
	u := epro.NewUUID()
	b, err := json.Marshal(u)
	if err != nil || string(b) != `"`+u.String()+`"` {
		t.Fatalf("%s, %v", b, err)
	}
	var got epro.UUID
	if err := json.Unmarshal(b, &got); err != nil || got != u {
		t.Fatalf("%v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`"7b0c1f6e"`), &got); err == nil || got != u {
		t.Fatalf("a bad UUID was taken or changed the value: %v, %v", got, err)
	}
}

func TestNewUUIDIsVersion4AndFresh(t *testing.T) {
	seen := map[epro.UUID]bool{}
	for range 1000 {
		u := epro.NewUUID()
		if u[6]>>4 != 4 || u[8]>>6 != 2 || u.IsZero() || seen[u] {
			t.Fatalf("%s", u)
		}
		seen[u] = true
	}
}

func TestValidID(t *testing.T) {
	for s, want := range map[string]bool{
		"P-000001": true, "~": true, "a b": true, strings.Repeat("x", 64): true, "!": true,
		"": false, " a": false, "a ": false, " ": false, strings.Repeat("x", 65): false,
		"a\nb": false, "a\x00": false, "a\x7f": false, "é": false, "a\u200bb": false, "\xff": false,
	} {
		if err := epro.ValidID(s); (err == nil) != want {
			t.Errorf("%q: error %v, valid must be %v", s, err, want)
		}
	}
}

// An id's error goes into logs and answers, so it must not quote the id.
func TestValidIDQuotesNothing(t *testing.T) {
	for _, s := range []string{"secret\n", strings.Repeat("secret", 20), " secret"} {
		if err := epro.ValidID(s); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestKindText(t *testing.T) {
	for k, want := range map[epro.Kind]string{
		{Name: "report", Version: 1}: "report@1", {Name: "x", Version: 0}: "x@0", {Name: "x", Version: 65535}: "x@65535", {Name: "x", Version: 100}: "x@100",
	} {
		if k.String() != want {
			t.Errorf("%s, must be %s", k, want)
		}
	}
	if !epro.KindReport.Known() || (epro.Kind{Name: "report", Version: 2}).Known() || (epro.Kind{Name: "Report", Version: 1}).Known() {
		t.Error("exactly the published kinds are known")
	}
}
