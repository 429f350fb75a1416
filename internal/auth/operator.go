package auth

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"
)

// MaxOperatorLife bounds the life of an operator's token.
const MaxOperatorLife = 60 * time.Second

// An operator's token is version u8 = 1, kind u8, key id u32, expiry i64 in
// seconds since 1970, HMAC-SHA-256 under a key of its own derivation.
const operatorHead = 1 + 1 + 4 + 8

// MintOperator makes a token for the admin listener's control routes. It
// proves one thing: that its maker can read the keys folder now. It lives for
// at most [MaxOperatorLife]; make a new one for each call.
func (k *Keys) MintOperator(now time.Time) string {
	key := (*k.token.Load()).current()
	b := []byte{tokenVersion, byte(KindOperator)}
	b = binary.BigEndian.AppendUint32(b, key.id)
	b = binary.BigEndian.AppendUint64(b, uint64(now.Add(MaxOperatorLife).Unix()))
	return prefixOperator + base64.RawURLEncoding.EncodeToString(key.operator.append(b, b))
}

// VerifyOperator checks an operator's token. Only the newest token key counts:
// whoever holds an older one may have got it from a leak.
func (k *Keys) VerifyOperator(token string, now time.Time) error {
	if KindOf(token) != KindOperator {
		return ErrMalformed
	}
	b, ok := decodeToken(token)
	if !ok || len(b) != operatorHead+macBytes || b[0] != tokenVersion || Kind(b[1]) != KindOperator {
		return ErrMalformed
	}
	key := (*k.token.Load()).current()
	if binary.BigEndian.Uint32(b[2:]) != key.id {
		return ErrUnknownKey
	}
	if !key.operator.verify(b[:operatorHead], b[operatorHead:]) {
		return ErrForged
	}
	// Seconds, as in the token: a life that rounding made 60.9 s is not refused.
	left := int64(binary.BigEndian.Uint64(b[6:])) - now.Unix()
	if left <= 0 {
		return ErrExpired
	}
	if left > int64(MaxOperatorLife/time.Second) {
		return fmt.Errorf("%w: it lives longer than an operator's token may, or the clock was set back", ErrMalformed)
	}
	return nil
}
