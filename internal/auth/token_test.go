package auth_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
)

func TestTokenRoundTrip(t *testing.T) {
	k, dir := newKeys(t)
	other := load(t, dir) // another process with the same keys
	id := rapid.StringMatching(`[!-~]([ -~]{0,62}[!-~])?`)
	rapid.Check(t, func(t *rapid.T) {
		c := auth.Claims{
			Trial: id.Draw(t, "trial"), Shard: rapid.Uint32().Draw(t, "shard"), Epoch: rapid.Uint32().Draw(t, "epoch"),
			Expires: time.Unix(rapid.Int64Range(now.Unix()+1, 253402300799).Draw(t, "expires"), 0).UTC(),
		}
		if rapid.Bool().Draw(t, "relay") {
			c.Kind, c.Scope, c.Relay = auth.KindRelay, auth.ScopeRelay, id.Draw(t, "name")
			c.Sites = rapid.SliceOfNDistinct(rapid.StringMatching(`[A-Za-z0-9._-]{1,7}`), 0, 8, rapid.ID[string]).Draw(t, "sites")
		} else {
			c.Kind, c.Scope = auth.KindParticipant, auth.Scope(rapid.IntRange(1, 3).Draw(t, "scope"))
			c.Participant, c.Device = id.Draw(t, "participant"), id.Draw(t, "device")
		}
		token, err := k.Mint(c)
		if err != nil {
			t.Fatal(err)
		}
		if len(token) > auth.MaxTokenText || auth.KindOf(token) != c.Kind {
			t.Fatalf("token of %d bytes, kind %v", len(token), auth.KindOf(token))
		}
		got, err := other.Verify(token, now)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(got.Sites, "\n") == "" {
			got.Sites, c.Sites = nil, nil
		} else {
			wantSet, gotSet := map[string]bool{}, map[string]bool{}
			for i := range got.Sites {
				gotSet[got.Sites[i]], wantSet[c.Sites[i]] = true, true
			}
			if !reflect.DeepEqual(gotSet, wantSet) {
				t.Fatalf("sites %q, want %q", got.Sites, c.Sites)
			}
			c.Sites = got.Sites
		}
		c.KeyID = 1
		if !reflect.DeepEqual(got, c) {
			t.Fatalf("got %+v, want %+v", got, c)
		}
	})
}

// The layout and the derivation, written a second time with the standard
// library alone: what is frozen here is on phones for a year.
func TestTokenLayout(t *testing.T) {
	k, dir := newKeys(t)
	secret := payload(t, filepath.Join(dir, "token-1.key"), 32)
	key, err := hkdf.Key(sha256.New, secret, nil, "tidegate-token-v1|T001", 32)
	if err != nil {
		t.Fatal(err)
	}
	c := participantClaims()
	expires := binary.BigEndian.AppendUint64(nil, uint64(c.Expires.Unix()))
	seal := func(prefix string, message []byte) string {
		m := hmac.New(sha256.New, key)
		m.Write(message)
		return pack(prefix, m.Sum(message))
	}
	message := []byte{1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 3}
	message = append(message, expires...)
	message = append(message, "\x04T001\x08P-000001\x07phone-1"...)
	if got, want := mint(t, k, c), seal("tgp1_", message); got != want {
		t.Errorf("participant's token\n got %s\nwant %s", got, want)
	}
	message = []byte{1, 2, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	message = append(message, expires...)
	message = append(message, "\x04T001\x06clinic\x02\x03S01\x03S02"...)
	r := relayClaims()
	r.Sites = []string{"S02", "S01", "S02"} // sorted, each once
	if got, want := mint(t, k, r), seal("tgl1_", message); got != want {
		t.Errorf("relay's token\n got %s\nwant %s", got, want)
	}

	// Even under a fitting MAC there is one form only.
	head := append([]byte{1, 2, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, expires...)
	for name, tail := range map[string]string{
		"sites not sorted": "\x04T001\x06clinic\x02\x03S02\x03S01",
		"a site twice":     "\x04T001\x06clinic\x02\x03S01\x03S01",
		"an empty site":    "\x04T001\x06clinic\x01\x00",
		"bytes after":      "\x04T001\x06clinic\x00\x00",
		"no sites' number": "\x04T001\x06clinic",
		"33 sites":         "\x04T001\x06clinic\x21" + strings.Repeat("\x03S01", 33),
		"control in name":  "\x04T001\x06clini\n\x00",
	} {
		if _, err := k.Verify(seal("tgl1_", append(bytes.Clone(head), tail...)), now); !errors.Is(err, auth.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}

	secret = payload(t, filepath.Join(dir, "meaning.key"), 32)
	if key, err = hkdf.Key(sha256.New, secret, nil, "tidegate-meaning-v1|T001", 32); err != nil {
		t.Fatal(err)
	}
	for range 2 { // derived, then remembered
		if got := k.MeaningKey("T001"); !bytes.Equal(got[:], key) {
			t.Error("the meaning key is not HKDF of meaning.key")
		}
	}
	if k.MeaningKey("T002") == k.MeaningKey("T001") {
		t.Error("two trials have one meaning key")
	}
}

// payload reads the secret out of a key file.
func payload(t *testing.T, path string, n int) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(strings.TrimSpace(string(content)), " ")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != n+8 {
		t.Fatalf("%s: %d bytes, %v", path, len(b), err)
	}
	return b[:n]
}

func TestVerifyErrors(t *testing.T) {
	k, _ := newKeys(t)
	foreign, _ := newKeys(t)
	good := mint(t, k, participantClaims())
	prefix, b := unpack(t, good)
	changed := func(f func(b []byte) []byte) string { return pack(prefix, f(bytes.Clone(b))) }
	expires := participantClaims().Expires
	for name, test := range map[string]struct {
		token string
		at    time.Time
		want  error
	}{
		"good":                  {good, now, nil},
		"last second":           {good, expires.Add(-time.Nanosecond), nil},
		"expired this instant":  {good, expires, auth.ErrExpired},
		"long expired":          {good, expires.Add(1000 * time.Hour), auth.ErrExpired},
		"relay":                 {mint(t, k, relayClaims()), now, nil},
		"of another service":    {mint(t, foreign, participantClaims()), now, auth.ErrForged},
		"expired and forged":    {mint(t, foreign, participantClaims()), expires, auth.ErrForged},
		"key 2":                 {changed(func(b []byte) []byte { b[6] = 2; return b }), now, auth.ErrUnknownKey},
		"key 0":                 {changed(func(b []byte) []byte { b[6] = 0; return b }), now, auth.ErrUnknownKey},
		"key 2^32-1":            {changed(func(b []byte) []byte { copy(b[3:], "\xff\xff\xff\xff"); return b }), now, auth.ErrUnknownKey},
		"version 2":             {changed(func(b []byte) []byte { b[0] = 2; return b }), now, auth.ErrMalformed},
		"kind of a relay":       {changed(func(b []byte) []byte { b[1] = 2; return b }), now, auth.ErrMalformed},
		"scope relay":           {changed(func(b []byte) []byte { b[2] = 4; return b }), now, auth.ErrMalformed},
		"scope 0":               {changed(func(b []byte) []byte { b[2] = 0; return b }), now, auth.ErrMalformed},
		"scope read":            {changed(func(b []byte) []byte { b[2] = 2; return b }), now, auth.ErrForged},
		"shard":                 {changed(func(b []byte) []byte { b[10]++; return b }), now, auth.ErrForged},
		"expiry":                {changed(func(b []byte) []byte { b[22]++; return b }), now, auth.ErrForged},
		"trial":                 {changed(func(b []byte) []byte { b[27]++; return b }), now, auth.ErrForged},
		"MAC":                   {changed(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), now, auth.ErrForged},
		"cut MAC":               {changed(func(b []byte) []byte { return b[:len(b)-1] }), now, auth.ErrMalformed},
		"long MAC":              {changed(func(b []byte) []byte { return append(b, 0) }), now, auth.ErrMalformed},
		"only a head":           {changed(func(b []byte) []byte { return b[:23+32] }), now, auth.ErrMalformed},
		"nothing":               {"", now, auth.ErrMalformed},
		"only a prefix":         {"tgp1_", now, auth.ErrMalformed},
		"prefix of a relay":     {"tgl1_" + good[5:], now, auth.ErrMalformed},
		"prefix of staff":       {"tgs1_" + good[5:], now, auth.ErrMalformed},
		"prefix of an operator": {"tgo1_" + good[5:], now, auth.ErrMalformed},
		"prefix in capitals":    {"TGP1_" + good[5:], now, auth.ErrMalformed},
		"blank before":          {" " + good, now, auth.ErrMalformed},
		"blank after":           {good + " ", now, auth.ErrMalformed},
		"padding":               {good + "=", now, auth.ErrMalformed},
		"line end":              {good[:20] + "\n" + good[20:], now, auth.ErrMalformed},
		"carriage return":       {good[:20] + "\r" + good[20:], now, auth.ErrMalformed},
		"standard alphabet":     {good[:20] + "+" + good[21:], now, auth.ErrMalformed},
		"not ASCII":             {good[:20] + "é" + good[20:], now, auth.ErrMalformed},
		"far too long":          {"tgp1_" + strings.Repeat("A", 1<<20), now, auth.ErrMalformed},
		"a JWT":                 {"eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IKOSiPQ7wLQ", now, auth.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := k.Verify(test.token, test.at)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err == nil {
				return
			}
			if !auth.Refused(err) {
				t.Errorf("not a 401: %v", err)
			}
			if !reflect.DeepEqual(c, auth.Claims{}) {
				t.Errorf("claims of a refused token: %+v", c)
			}
			if len(test.token) > 10 && strings.Contains(err.Error(), test.token[5:15]) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
	if auth.Refused(nil) || auth.Refused(os.ErrClosed) {
		t.Error("Refused takes another error for a refusal")
	}
}

// Unpadded base64 leaves bits over at the end of some lengths: each such
// spelling of a good token is refused.
func TestOneSpelling(t *testing.T) {
	k, _ := newKeys(t)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	lengths := map[int]bool{}
	for n := 1; n <= 3; n++ {
		c := participantClaims()
		c.Device = strings.Repeat("d", n)
		good := mint(t, k, c)
		_, b := unpack(t, good)
		lengths[len(b)%3] = true
		for _, last := range alphabet {
			token := good[:len(good)-1] + string(last)
			if _, err := k.Verify(token, now); (err == nil) != (token == good) {
				t.Errorf("length %d: last character changed: %v", len(b), err)
			}
		}
	}
	if len(lengths) != 3 {
		t.Fatalf("not every remainder was tried: %v", lengths)
	}
}

// Flipping any one bit of a token is detected.
func TestEveryBit(t *testing.T) {
	k, _ := newKeys(t)
	for _, c := range []auth.Claims{participantClaims(), relayClaims()} {
		prefix, b := unpack(t, mint(t, k, c))
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			if _, err := k.Verify(pack(prefix, b), now); err == nil {
				t.Errorf("bit %d of a %v's token may be flipped", i, c.Kind)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestMintRefuses(t *testing.T) {
	k, _ := newKeys(t)
	long := strings.Repeat("x", epro.MaxIDLength+1)
	many := make([]string, auth.MaxSites+1)
	for i := range many {
		many[i] = fmt.Sprintf("S%02d", i)
	}
	for name, change := range map[string]func(p, r *auth.Claims){
		"no kind":             func(p, r *auth.Claims) { p.Kind, r.Kind = 0, auth.KindStaff },
		"no scope":            func(p, r *auth.Claims) { p.Scope, r.Scope = 0, 0 },
		"other's scope":       func(p, r *auth.Claims) { p.Scope, r.Scope = auth.ScopeRelay, auth.ScopeSubmit },
		"mixed scope":         func(p, r *auth.Claims) { p.Scope |= auth.ScopeRelay; r.Scope |= auth.ScopeRead },
		"unknown scope":       func(p, r *auth.Claims) { p.Scope |= 8; r.Scope |= 128 },
		"no trial":            func(p, r *auth.Claims) { p.Trial, r.Trial = "", "" },
		"long trial":          func(p, r *auth.Claims) { p.Trial, r.Trial = long, long },
		"no name":             func(p, r *auth.Claims) { p.Participant, r.Relay = "", "" },
		"long name":           func(p, r *auth.Claims) { p.Participant, r.Relay = long, long },
		"control in name":     func(p, r *auth.Claims) { p.Participant, r.Relay = "P\n1", "c\x00" },
		"no device, bad site": func(p, r *auth.Claims) { p.Device = ""; r.Sites = []string{"S01", ""} },
		"long device, sites":  func(p, r *auth.Claims) { p.Device = long; r.Sites = many },
		"comma in site":       func(p, r *auth.Claims) { p.Device = ""; r.Sites = []string{"S01,S02"} },
		"sites over 64 bytes": func(p, r *auth.Claims) { p.Device = ""; r.Sites = many[:17] },
		"no expiry":           func(p, r *auth.Claims) { p.Expires, r.Expires = time.Time{}, time.Unix(0, 0) },
		"expiry in 10000":     func(p, r *auth.Claims) { p.Expires = time.Unix(253402300800, 0); r.Expires = p.Expires },
	} {
		p, r := participantClaims(), relayClaims()
		change(&p, &r)
		for _, c := range []auth.Claims{p, r} {
			if token, err := k.Mint(c); err == nil {
				t.Errorf("%s: a %v's token was made: %q", name, c.Kind, token)
			}
		}
	}
	sites := []string{"S02", "S01"}
	r := relayClaims()
	r.Sites = sites
	mint(t, k, r)
	if sites[0] != "S02" {
		t.Error("minting sorted the caller's slice")
	}
}

func TestTokenKeys(t *testing.T) {
	k, dir := newKeys(t)
	first := mint(t, k, participantClaims())
	if err := k.RetireTokenKey(1); err == nil {
		t.Fatal("the current key was retired")
	}
	id, err := k.NewTokenKey()
	if err != nil || id != 2 {
		t.Fatalf("key %d, %v", id, err)
	}
	second := mint(t, k, participantClaims())
	check := func(k *auth.Keys, firstErr error) {
		t.Helper()
		if c, err := k.Verify(first, now); !errors.Is(err, firstErr) || err == nil && c.KeyID != 1 {
			t.Errorf("token of key 1: %+v, %v; want %v", c, err, firstErr)
		}
		if c, err := k.Verify(second, now); err != nil || c.KeyID != 2 {
			t.Errorf("token of key 2: %+v, %v", c, err)
		}
	}
	check(k, nil)
	check(load(t, dir), nil)
	for _, unknown := range []uint32{0, 3, 1 << 31} {
		if err := k.RetireTokenKey(unknown); err == nil {
			t.Errorf("key %d was retired", unknown)
		}
	}
	secret := payload(t, filepath.Join(dir, "token-1.key"), 32)
	for range 2 {
		if err := k.RetireTokenKey(1); err != nil {
			t.Fatal(err)
		}
		check(k, auth.ErrUnknownKey)
		check(load(t, dir), auth.ErrUnknownKey)
	}
	content, err := os.ReadFile(filepath.Join(dir, "token-1.key"))
	if err != nil || strings.Contains(string(content), base64.RawURLEncoding.EncodeToString(secret)[:40]) {
		t.Errorf("a retired key's secret is still there: %v", err)
	}
	want := []auth.TokenKey{{ID: 1, Retired: true}, {ID: 2, Current: true}}
	if got := load(t, dir).TokenKeys(); !reflect.DeepEqual(got, want) {
		t.Errorf("token keys %+v, want %+v", got, want)
	}
	if id, err := load(t, dir).NewTokenKey(); err != nil || id != 3 {
		t.Errorf("the next key has number %d, %v", id, err)
	}
}

// More trials than are remembered, from several goroutines, while keys rotate.
func TestManyTrials(t *testing.T) {
	k, _ := newKeys(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 1500 {
				c := participantClaims()
				c.Trial = fmt.Sprintf("T%d-%d", w%3, i) // two workers share their trials
				token, err := k.Mint(c)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := k.Verify(token, now); err != nil || got.Trial != c.Trial {
					t.Errorf("%s: %+v, %v", c.Trial, got, err)
					return
				}
				if key := k.MeaningKey(c.Trial); key != k.MeaningKey(c.Trial) {
					t.Errorf("%s: two meaning keys", c.Trial)
				}
			}
		})
	}
	wg.Go(func() {
		for range 3 {
			if _, err := k.NewTokenKey(); err != nil {
				t.Error(err)
			}
			if _, err := k.NewSigningKey(); err != nil {
				t.Error(err)
			}
			_ = k.Signer().KeyID()
		}
	})
	wg.Wait()
}
