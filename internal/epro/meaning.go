package epro

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

const (
	meaningTag  = "tidegate-meaning-v1\n"
	reportIDTag = "tidegate-report-id-v1"
)

// ID returns the id under which the report is known: ReportID if it is set, else the one [DeriveReportID] gives.
func (r *Report) ID() UUID {
	if r.ReportID != (UUID{}) {
		return r.ReportID
	}
	return DeriveReportID(r.TrialID, r.PatientID, r.Timestamp)
}

// DeriveReportID returns the id of a report that was sent without one, so that the same report sent again is known as the same. It
// is a version 8 UUID (RFC 9562) made of the first 16 bytes of
//
//	SHA-256("tidegate-report-id-v1" ‖ u32 length ‖ trial ‖ u32 length ‖ participant ‖ i64 seconds ‖ u32 nanoseconds)
//
// with the version and variant bits set: byte 6 is (b & 0x0F) | 0x80, byte 8 is (b & 0x3F) | 0x80. Integers are big-endian, the seconds
// are counted from 1970-01-01T00:00:00Z without leap seconds. The offset of at has no part in it.
func DeriveReportID(trial, participant string, at time.Time) UUID {
	var buf [256]byte // enough for two ids of 64 bytes, so that nothing is allocated
	b := append(buf[:0], reportIDTag...)
	b = appendText(b, trial)
	b = appendText(b, participant)
	b = AppendInstant(b, at)
	sum := sha256.Sum256(b)
	id := UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// AppendMeaning appends the canonical meaning of the report to dst: two reports have the same meaning exactly if a reader would call
// them the same, however they were spelled. Its keyed digest is what tells a repeat from a conflict, so the layout is frozen:
//
//	"tidegate-meaning-v1\n"               20 bytes of ASCII
//	trial id                              u32 length, bytes
//	participant id                        u32 length, bytes
//	report id                             16 bytes: as sent, else as derived (DeriveReportID)
//	instrument id                         u32 length, bytes ("qol" if none was sent)
//	instrument version                    u32 (1 if none was sent)
//	device time                           i64 seconds since 1970-01-01T00:00:00Z, u32 nanoseconds; the offset has no part in it
//	score                                 u8 0 if absent, else u8 1, i64 value
//	comments                              u8 0 if absent, else u8 1, u32 length, the decoded text in UTF-8
//	answers                               u8 0 if absent, else u8 1, u32 length, CanonicalJSON of the object
//	extensions                            as answers
//
// Integers are big-endian. Absent and empty comments differ: "no comments field" and "a field left blank" are different statements,
// as are absent answers and an empty object. Text is compared as it was typed, without Unicode normalization.
//
// r should come from [ParseReport]. Answers or extensions that are not canonicalizable, which ParseReport never returns, are taken as they are
// behind u8 2 instead of u8 1.
func (r *Report) AppendMeaning(dst []byte) []byte {
	id := r.ID()
	dst = append(dst, meaningTag...)
	dst = appendText(dst, r.TrialID)
	dst = appendText(dst, r.PatientID)
	dst = append(dst, id[:]...)
	dst = appendText(dst, r.Instrument)
	dst = binary.BigEndian.AppendUint32(dst, r.InstrumentVersion)
	dst = AppendInstant(dst, r.Timestamp)
	if r.HasScore {
		dst = append(dst, 1)
		dst = binary.BigEndian.AppendUint64(dst, uint64(int64(r.QoLScore))) //nolint:gosec // two's complement on purpose
	} else {
		dst = append(dst, 0)
	}
	if r.HasComments {
		dst = append(dst, 1)
		dst = appendText(dst, r.Comments)
	} else {
		dst = append(dst, 0)
	}
	dst = appendObject(dst, r.Answers)
	return appendObject(dst, r.Extensions)
}

func appendObject(dst, object []byte) []byte {
	if object == nil {
		return append(dst, 0)
	}
	at := len(dst)
	dst, err := CanonicalJSON(append(dst, 1, 0, 0, 0, 0), object)
	if err != nil {
		dst[at] = 2
		dst = append(dst, object...)
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-5)) //nolint:gosec // a body is far below 4 GiB
	return dst
}

func appendText(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s))) //nolint:gosec // a body is far below 4 GiB
	return append(dst, s...)
}
