package auth_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
)

func TestOperatorToken(t *testing.T) {
	k, dir := newKeys(t)
	at := now.Add(999 * time.Millisecond) // expiry is whole seconds
	token := k.MintOperator(at)
	if auth.KindOf(token) != auth.KindOperator {
		t.Errorf("kind %v", auth.KindOf(token))
	}
	prefix, b := unpack(t, token)
	for name, test := range map[string]struct {
		token string
		at    time.Time
		want  error
	}{
		"good":                {token, at, nil},
		"at the end":          {token, now.Add(59 * time.Second), nil},
		"expired":             {token, now.Add(60 * time.Second), auth.ErrExpired},
		"clock set back":      {token, now.Add(-time.Second), auth.ErrMalformed},
		"line end":            {token[:9] + "\n" + token[9:], at, auth.ErrMalformed},
		"longer":              {pack(prefix, append(bytes.Clone(b), 0)), at, auth.ErrMalformed},
		"participant's":       {mint(t, k, participantClaims()), at, auth.ErrMalformed},
		"participant's as it": {"tgo1_" + mint(t, k, participantClaims())[5:], at, auth.ErrMalformed},
		"nothing":             {"", at, auth.ErrMalformed},
	} {
		if err := load(t, dir).VerifyOperator(test.token, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if err := k.VerifyOperator(pack(prefix, b), at); err == nil || !auth.Refused(err) {
			t.Errorf("bit %d may be flipped: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	if _, err := k.NewTokenKey(); err != nil {
		t.Fatal(err)
	}
	if err := k.VerifyOperator(token, at); !errors.Is(err, auth.ErrUnknownKey) {
		t.Errorf("a token of an older key: %v", err)
	}
	if err := load(t, dir).VerifyOperator(k.MintOperator(at), at); err != nil {
		t.Errorf("a token of the newest key: %v", err)
	}
}
