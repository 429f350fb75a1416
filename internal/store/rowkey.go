package store

import (
	"fmt"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
)

// What the engines' rows have in common: one integer key for a place in the
// journal, numbers for the words of a report, and times that come back as they
// were sent. The numbers are part of an engine's layout.

// MaxPosition is the highest position that a row key can hold.
const MaxPosition = 1<<47 - 1

// RowKey is the integer key of a place; its order is the order of the journal.
func RowKey(r Ref) int64 { return int64(r.Position)<<16 | int64(r.Index&0xffff) }

// RefOfRow is the place that a row key stands for.
func RefOfRow(row int64) Ref {
	return Ref{Position: journal.Position(row >> 16), Index: uint32(row & 0xffff)}
}

// CheckRef says whether a place fits a row key.
func CheckRef(r Ref) error {
	if r.Position == 0 || r.Position > MaxPosition || r.Index > 0xffff {
		return fmt.Errorf("place %d/%d of a fact does not fit the tables' key", r.Position, r.Index)
	}
	return nil
}

// Numbers of dispositions that are listed. Recorded is the usual one; engines
// name it in the condition of the small index for work lists.
const (
	CodeRecorded    = 1
	CodeConflict    = 2
	CodeQuarantined = 3
)

// DispositionCode is the number of a listed disposition.
func DispositionCode(d epro.Disposition) (int64, error) {
	switch d {
	case epro.Recorded:
		return CodeRecorded, nil
	case epro.Conflict:
		return CodeConflict, nil
	case epro.Quarantined:
		return CodeQuarantined, nil
	default:
		return 0, fmt.Errorf("disposition %q has no row", d)
	}
}

var dispositions = [...]epro.Disposition{CodeRecorded: epro.Recorded, CodeConflict: epro.Conflict, CodeQuarantined: epro.Quarantined}

// DispositionOf is the disposition of a number; false for an unknown one.
func DispositionOf(code int64) (epro.Disposition, bool) {
	if code < CodeRecorded || code > CodeQuarantined {
		return "", false
	}
	return dispositions[code], true
}

// reasonOrder gives each reason its bit.
var reasonOrder = [...]epro.QuarantineReason{
	epro.ReasonMalformed, epro.ReasonTrialNotOpen, epro.ReasonNotEnrolled, epro.ReasonWithdrawn,
	epro.ReasonEpochRevoked, epro.ReasonForeignSite, epro.ReasonUnknownInstrument, epro.ReasonClockAhead,
}

// ReasonBits are reasons as a set of bits.
func ReasonBits(list []epro.QuarantineReason) (int64, error) {
	var bits int64
next:
	for _, r := range list {
		for i, known := range reasonOrder {
			if r == known {
				bits |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("quarantine reason %q has no code", r)
	}
	return bits, nil
}

// ReasonsOf are the reasons of a set of bits, in the order of epro.
func ReasonsOf(bits int64) []epro.QuarantineReason {
	if bits == 0 {
		return nil
	}
	var list []epro.QuarantineReason
	for i, r := range reasonOrder {
		if bits&(1<<i) != 0 {
			list = append(list, r)
		}
	}
	return list
}

var resolutions = [...]epro.Resolution{0: "", 1: epro.ResolutionAccept, 2: epro.ResolutionVoid}

// ResolutionCode is the number of a resolution, 0 for none.
func ResolutionCode(r epro.Resolution) (int64, error) {
	for i, known := range resolutions {
		if r == known {
			return int64(i), nil
		}
	}
	return 0, fmt.Errorf("resolution %q has no code", r)
}

// ResolutionOf is the resolution of a number; false for an unknown one.
func ResolutionOf(code int64) (epro.Resolution, bool) {
	if code < 0 || code >= int64(len(resolutions)) {
		return "", false
	}
	return resolutions[code], true
}

// OffsetMinutes is a device time's offset from UTC.
func OffsetMinutes(t time.Time) int64 {
	_, s := t.Zone()
	return int64(s / 60)
}

// Instant is a time from its seconds since 1970, nanoseconds and minutes of
// offset: what RFC 3339 can write does not all fit nanoseconds in 64 bits.
func Instant(sec, ns, off int64) time.Time {
	t := time.Unix(sec, ns)
	if off == 0 {
		return t.UTC()
	}
	return t.In(time.FixedZone("", int(off)*60))
}

// JournalTime is an instant of the journal, from nanoseconds since 1970.
func JournalTime(ns int64) time.Time { return time.Unix(0, ns).UTC() }
