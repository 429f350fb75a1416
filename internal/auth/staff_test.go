package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/vault"
)

// fakeVault answers from memory and fails on request.
type fakeVault struct {
	byID map[string]vault.Credential
	err  error
}

func (f *fakeVault) Credential(_ context.Context, id string) (vault.Credential, error) {
	if f.err != nil {
		return vault.Credential{}, f.err
	}
	c, ok := f.byID[id]
	if !ok {
		return c, vault.ErrNotFound
	}
	return c, nil
}

func TestStaffToken(t *testing.T) {
	token, cred, err := auth.NewStaffToken("anna", now.Add(500*time.Millisecond), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other, otherCred, err := auth.NewStaffToken("ben", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !cred.Created.Equal(now) || !cred.Expires.Equal(now.Add(time.Hour)) || !cred.Revoked.IsZero() {
		t.Errorf("credential %+v", cred)
	}
	if auth.KindOf(token) != auth.KindStaff || !strings.HasPrefix(token, "tgs1_"+cred.ID+"_") || cred.ID == otherCred.ID {
		t.Errorf("ids %s and %s", cred.ID, otherCred.ID)
	}
	creds := &fakeVault{byID: map[string]vault.Credential{cred.ID: cred, otherCred.ID: otherCred}}
	revoked := cred
	revoked.Revoked = now
	down := errors.New("disk gone")
	last := token[len(token)-1:]
	secret := token[5+16+1:]
	for name, test := range map[string]struct {
		token string
		at    time.Time
		creds *fakeVault
		want  error
	}{
		"good":                   {token, now, creds, nil},
		"other's":                {other, now, creds, nil},
		"last second":            {token, now.Add(time.Hour - 1), creds, nil},
		"expired":                {token, now.Add(time.Hour), creds, auth.ErrExpired},
		"revoked":                {token, now, &fakeVault{byID: map[string]vault.Credential{cred.ID: revoked}}, auth.ErrRevoked},
		"revoked and expired":    {token, now.Add(time.Hour), &fakeVault{byID: map[string]vault.Credential{cred.ID: revoked}}, auth.ErrRevoked},
		"unknown id":             {token, now, &fakeVault{}, auth.ErrForged},
		"secret of another":      {token[:22] + other[22:], now, creds, auth.ErrForged},
		"secret of an expired":   {token[:22] + other[22:], now.Add(time.Hour), creds, auth.ErrForged},
		"vault away":             {token, now, &fakeVault{err: down}, down},
		"id in capitals":         {token[:5] + "ABCDEFABCDEFABCD" + token[21:], now, creds, auth.ErrMalformed},
		"id not hexadecimal":     {token[:5] + "zzzzzzzzzzzzzzzz" + token[21:], now, creds, auth.ErrMalformed},
		"no secret":              {token[:22], now, creds, auth.ErrMalformed},
		"cut":                    {token[:len(token)-1], now, creds, auth.ErrMalformed},
		"longer":                 {token + last, now, creds, auth.ErrMalformed},
		"padding":                {token + "=", now, creds, auth.ErrMalformed},
		"line end for a letter":  {token[:30] + "\n" + token[31:], now, creds, auth.ErrMalformed},
		"other separator":        {token[:21] + "-" + secret, now, creds, auth.ErrMalformed},
		"other prefix":           {"tgp1_" + token[5:], now, creds, auth.ErrMalformed},
		"spare bits of the last": {token[:len(token)-1] + nextLetter(last), now, creds, auth.ErrMalformed},
		"nothing":                {"", now, creds, auth.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			staff, err := auth.VerifyStaff(t.Context(), test.creds, test.token, test.at)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err == nil {
				if want := map[string]string{token: "anna", other: "ben"}[test.token]; staff != want {
					t.Errorf("staff %q, want %q", staff, want)
				}
				return
			}
			if staff != "" {
				t.Errorf("names %q with an error", staff)
			}
			if auth.Refused(err) == errors.Is(err, down) {
				t.Errorf("401 for %v: %v", err, auth.Refused(err))
			}
			if strings.Contains(err.Error(), secret[:10]) || strings.Contains(err.Error(), cred.ID) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

// nextLetter changes the lowest bit of a base64 letter.
func nextLetter(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.Index(alphabet, s)^1])
}

func TestNewStaffTokenRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		staff string
		life  time.Duration
	}{
		"nobody":           {"", time.Hour},
		"not ASCII":        {"Zoë", time.Hour},
		"no life":          {"anna", 0},
		"part of a second": {"anna", time.Second - 1},
		"for ever":         {"anna", auth.MaxStaffLife + 1},
	} {
		if token, _, err := auth.NewStaffToken(test.staff, now, test.life); err == nil || token != "" {
			t.Errorf("%s: a token was made, %v", name, err)
		}
	}
}

func FuzzVerifyStaff(f *testing.F) {
	token, cred, err := auth.NewStaffToken("anna", now, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	creds := &fakeVault{byID: map[string]vault.Credential{cred.ID: cred}}
	f.Add(token)
	f.Add(token[:30] + "\n" + token[31:])
	f.Fuzz(func(t *testing.T, text string) {
		staff, err := auth.VerifyStaff(t.Context(), creds, text, now)
		if (err == nil) != (text == token) || (err == nil) != (staff == "anna") || err != nil && !auth.Refused(err) {
			t.Fatalf("%q is %q, %v", text, staff, err)
		}
	})
}
