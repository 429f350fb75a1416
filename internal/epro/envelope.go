package epro

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// EnvelopeVersion is the first byte of every canonical envelope.
const EnvelopeVersion = 1

// MaxEnvelopeBytes bounds a canonical envelope, and MinEnvelopeBytes is the
// shortest: 120 fixed bytes, and five strings of 1 + (0 to 64) bytes.
const (
	MinEnvelopeBytes = 120 + 5
	MaxEnvelopeBytes = 120 + 5*(1+MaxIDLength)
)

// Flags of an envelope. Unknown bits are kept by readers and mean nothing to them.
const (
	// FlagClockApart says that the gateway's clock and the journal's disagreed
	// when the fact was taken, so its device clock is not judged.
	FlagClockApart uint16 = 1 << 0
	// FlagDerivedID says that the report came without an id of its own.
	FlagDerivedID uint16 = 1 << 1
)

// Envelope is the part of a fact that is hashed into the tree: everything but
// the words themselves, which it commits to by BodyDigest. Its canonical bytes
// (docs/format.md §2) are the leaf, so they never change.
type Envelope struct {
	Flags      uint16
	Kind       Kind
	ID         UUID
	Trial      string // "" for facts about no single trial
	Subject    string // the participant a fact is about, "" if none
	Actor      Actor
	TokenKey   uint32    // id of the key that signed the token, 0 if none
	Epoch      uint32    // the token's epoch, 0 if none
	OccurredAt time.Time // device clock, with the offset the device sent (whole minutes)
	ReceivedAt time.Time // gateway clock, UTC
	BodyDigest Digest    // SHA-256(salt ‖ body)
	Meaning    Digest    // equal for equal content; see MeaningDigest
}

// ErrEnvelope wraps every reason for which bytes are not a canonical envelope.
var ErrEnvelope = errors.New("not a canonical envelope")

// AppendBinary appends the canonical bytes of e. It fails when a field is out
// of the format's bounds; it never truncates.
func (e *Envelope) AppendBinary(dst []byte) ([]byte, error) {
	_, offset := e.OccurredAt.Zone()
	switch {
	case e.Kind.Name == "":
		return nil, fmt.Errorf("%w: no kind", ErrEnvelope)
	case e.Actor.Type < ActorParticipant || e.Actor.Type > ActorSystem:
		return nil, fmt.Errorf("%w: unknown actor type %d", ErrEnvelope, e.Actor.Type)
	case offset%60 != 0 || offset < -maxOffsetMinutes*60 || offset > maxOffsetMinutes*60:
		return nil, fmt.Errorf("%w: device time's offset is not in whole minutes within a day", ErrEnvelope)
	case !validSeconds(e.OccurredAt.Unix()) || !validSeconds(e.ReceivedAt.Unix()):
		return nil, fmt.Errorf("%w: a time lies outside the years 0 to 9999", ErrEnvelope)
	}
	dst = append(dst, EnvelopeVersion)
	dst = binary.BigEndian.AppendUint16(dst, e.Flags)
	var err error
	put := func(s string) {
		if !envelopeString(s) && err == nil {
			err = fmt.Errorf("%w: a string is longer than %d bytes or not printable ASCII", ErrEnvelope, MaxIDLength)
			return
		}
		dst = append(dst, byte(len(s))) //nolint:gosec // at most MaxIDLength, just checked
		dst = append(dst, s...)
	}
	put(e.Kind.Name)
	dst = binary.BigEndian.AppendUint16(dst, e.Kind.Version)
	dst = append(dst, e.ID[:]...)
	put(e.Trial)
	put(e.Subject)
	dst = append(dst, byte(e.Actor.Type))
	put(e.Actor.ID)
	put(e.Actor.Device)
	dst = binary.BigEndian.AppendUint32(dst, e.TokenKey)
	dst = binary.BigEndian.AppendUint32(dst, e.Epoch)
	dst = AppendInstant(dst, e.OccurredAt)
	dst = binary.BigEndian.AppendUint16(dst, uint16(int16(offset/60))) //nolint:gosec // two's complement on purpose
	dst = AppendInstant(dst, e.ReceivedAt)
	dst = append(dst, e.BodyDigest[:]...)
	dst = append(dst, e.Meaning[:]...)
	if err != nil {
		return nil, err
	}
	return dst, nil
}

// AppendInstant appends t as signed seconds since 1970 (i64) and nanoseconds
// (u32), which holds every year RFC 3339 can write.
func AppendInstant(dst []byte, t time.Time) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.Unix()))        //nolint:gosec // two's complement on purpose
	return binary.BigEndian.AppendUint32(dst, uint32(t.Nanosecond())) //nolint:gosec // below 2^30
}

// maxOffsetMinutes is RFC 3339's largest offset, 23:59.
const maxOffsetMinutes = 23*60 + 59

// Bounds of the years RFC 3339 can write, in seconds since 1970.
const (
	minUnix = -62167219200 // 0000-01-01T00:00:00Z
	maxUnix = 253402300799 // 9999-12-31T23:59:59Z
)

// validSeconds says whether an instant may stand in an envelope. There is a day
// of slack: the bounds are of local time, the instant is UTC.
func validSeconds(sec int64) bool { return sec >= minUnix-86400 && sec <= maxUnix+86400 }

// DecodeEnvelope reads canonical bytes. Anything a writer would not have
// written is refused, so bytes and envelope are one to one. It never panics
// and the strings it returns do not alias b.
func DecodeEnvelope(b []byte) (Envelope, error) {
	d := envelopeReader{b: b}
	var e Envelope
	if v := d.u8(); !d.bad && v != EnvelopeVersion {
		return Envelope{}, fmt.Errorf("%w: version %d, this binary reads %d", ErrEnvelope, v, EnvelopeVersion)
	}
	e.Flags = d.u16()
	e.Kind.Name = d.str()
	e.Kind.Version = d.u16()
	copy(e.ID[:], d.take(16))
	e.Trial = d.str()
	e.Subject = d.str()
	e.Actor.Type = ActorType(d.u8())
	e.Actor.ID = d.str()
	e.Actor.Device = d.str()
	e.TokenKey = d.u32()
	e.Epoch = d.u32()
	occurred := d.instant()
	offset := int(int16(d.u16())) //nolint:gosec // two's complement on purpose
	e.ReceivedAt = d.instant()
	copy(e.BodyDigest[:], d.take(32))
	copy(e.Meaning[:], d.take(32))
	switch {
	case d.bad || len(d.b) != 0:
		return Envelope{}, fmt.Errorf("%w: wrong length or value out of bounds", ErrEnvelope)
	case e.Kind.Name == "":
		return Envelope{}, fmt.Errorf("%w: no kind", ErrEnvelope)
	case e.Actor.Type < ActorParticipant || e.Actor.Type > ActorSystem:
		return Envelope{}, fmt.Errorf("%w: unknown actor type %d", ErrEnvelope, e.Actor.Type)
	case offset < -maxOffsetMinutes || offset > maxOffsetMinutes:
		return Envelope{}, fmt.Errorf("%w: offset out of bounds", ErrEnvelope)
	}
	if offset == 0 {
		e.OccurredAt = occurred
	} else {
		e.OccurredAt = occurred.In(time.FixedZone("", offset*60))
	}
	return e, nil
}

// envelopeReader takes fields off the front of b; bad is set once and stays.
type envelopeReader struct {
	b   []byte
	bad bool
}

func (d *envelopeReader) take(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *envelopeReader) u8() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *envelopeReader) u16() uint16 {
	if v := d.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (d *envelopeReader) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (d *envelopeReader) str() string {
	v := string(d.take(int(d.u8())))
	if !envelopeString(v) {
		d.bad = true
		return ""
	}
	return v
}

// envelopeString says whether s may stand in an envelope: at most 64 bytes of
// printable ASCII.
func envelopeString(s string) bool {
	if len(s) > MaxIDLength {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func (d *envelopeReader) instant() time.Time {
	v := d.take(12)
	if v == nil {
		return time.Time{}
	}
	sec := int64(binary.BigEndian.Uint64(v)) //nolint:gosec // two's complement on purpose
	nsec := binary.BigEndian.Uint32(v[8:])
	if nsec > 999_999_999 || !validSeconds(sec) {
		d.bad = true
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

// Leaf is the tree's hash of a canonical envelope: SHA-256(0x00 ‖ envelope),
// the leaf hash of RFC 6962 §2.1.
func Leaf(envelope []byte) Digest {
	var buf [1 + MaxEnvelopeBytes]byte
	if len(envelope) > MaxEnvelopeBytes {
		h := sha256.New()
		h.Write([]byte{0})
		h.Write(envelope)
		return Digest(h.Sum(nil))
	}
	n := copy(buf[1:], envelope)
	return sha256.Sum256(buf[:1+n])
}
