package auth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
)

func FuzzVerify(f *testing.F) {
	k, _ := newKeys(f)
	for _, c := range []auth.Claims{participantClaims(), relayClaims()} {
		_, b := unpack(f, mint(f, k, c))
		f.Add(uint8(c.Kind), b)
		f.Add(uint8(c.Kind), b[:len(b)-32])
	}
	_, b := unpack(f, k.MintOperator(now))
	f.Add(uint8(3), b)
	f.Add(uint8(4), []byte("0123456789abcdef_"))
	prefixes := []string{"tgp1_", "tgl1_", "tgo1_", "tgs1_"}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		prefix := prefixes[int(kind)%len(prefixes)]
		for _, token := range []string{pack(prefix, b), prefix + string(b), string(b)} {
			c, err := k.Verify(token, now)
			if err != nil {
				if !auth.Refused(err) {
					t.Fatalf("another error: %v", err)
				}
			} else if again := mint(t, k, c); again != token {
				t.Fatalf("two texts for one token: %q and %q", token, again)
			}
			if err := k.VerifyOperator(token, now); err != nil && !auth.Refused(err) {
				t.Fatalf("another error: %v", err)
			}
		}
	})
}

func TestVerifyAllocations(t *testing.T) {
	k, _ := newKeys(t)
	token := mint(t, k, participantClaims())
	n := testing.AllocsPerRun(1000, func() {
		if _, err := k.Verify(token, now); err != nil {
			t.Fatal(err)
		}
	})
	if n > 2 && !raceDetector {
		t.Errorf("%v allocations a token, want at most 2", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	k, _ := newKeys(b)
	for name, token := range map[string]string{"participant": mint(b, k, participantClaims()), "relay": mint(b, k, relayClaims())} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Verify(token, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		token := mint(b, k, participantClaims())
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := k.Verify(token, now); err != nil {
					b.Error(err)
				}
			}
		})
	})
	foreign, _ := newKeys(b)
	forged := mint(b, foreign, auth.Claims{Kind: auth.KindParticipant, Scope: auth.ScopeSubmit, Trial: "T404", Participant: "P", Device: "d", Expires: now.Add(time.Hour)})
	b.Run("forged for a made-up trial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := k.Verify(forged, now); !errors.Is(err, auth.ErrForged) {
				b.Fatal(err)
			}
		}
	})
}
