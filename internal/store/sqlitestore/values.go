package sqlitestore

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

const maxPosition = 1<<47 - 1

// rowOf is the integer key of a place; its order is the order of the journal.
func rowOf(r store.Ref) int64 { return int64(r.Position)<<16 | int64(r.Index&0xffff) }

func refOf(row int64) store.Ref {
	return store.Ref{Position: journal.Position(row >> 16), Index: uint32(row & 0xffff)}
}

// checkRef says whether a place fits a row key.
func checkRef(r store.Ref) error {
	if r.Position == 0 || r.Position > maxPosition || r.Index > 0xffff {
		return fmt.Errorf("place %d/%d of a fact does not fit the tables' key", r.Position, r.Index)
	}
	return nil
}

// Codes of columns. Numbers are part of the layout.
const (
	codeRecorded    = 1
	codeConflict    = 2
	codeQuarantined = 3

	flagClockApart = 1
	flagErased     = 2
	flagTold       = 4
)

func dispositionCode(d epro.Disposition) (int64, error) {
	switch d {
	case epro.Recorded:
		return codeRecorded, nil
	case epro.Conflict:
		return codeConflict, nil
	case epro.Quarantined:
		return codeQuarantined, nil
	default:
		return 0, fmt.Errorf("disposition %q has no row", d)
	}
}

var dispositions = [...]epro.Disposition{codeRecorded: epro.Recorded, codeConflict: epro.Conflict, codeQuarantined: epro.Quarantined}

// reasonOrder gives each reason its bit.
var reasonOrder = [...]epro.QuarantineReason{
	epro.ReasonMalformed, epro.ReasonTrialNotOpen, epro.ReasonNotEnrolled, epro.ReasonWithdrawn,
	epro.ReasonEpochRevoked, epro.ReasonForeignSite, epro.ReasonUnknownInstrument, epro.ReasonClockAhead,
}

func reasonBits(list []epro.QuarantineReason) (int64, error) {
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

func reasonsOf(bits int64) []epro.QuarantineReason {
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

func resolutionCode(r epro.Resolution) (int64, error) {
	for i, known := range resolutions {
		if r == known {
			return int64(i), nil
		}
	}
	return 0, fmt.Errorf("resolution %q has no code", r)
}

// offset is a device time's offset in minutes.
func offset(t time.Time) int64 {
	_, s := t.Zone()
	return int64(s / 60)
}

func instant(sec, ns, off int64) time.Time {
	t := time.Unix(sec, ns)
	if off == 0 {
		return t.UTC()
	}
	return t.In(time.FixedZone("", int(off)*60))
}

// journalTime is an instant of the journal, from nanoseconds.
func journalTime(ns int64) time.Time { return time.Unix(0, ns).UTC() }

func nullTime(ns sql.NullInt64) time.Time {
	if !ns.Valid {
		return time.Time{}
	}
	return journalTime(ns.Int64)
}

// text is NULL for "", which a row stores in no byte.
func text(s string) driver.Value {
	if s == "" {
		return nil
	}
	return s
}

func timeOrNull(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UnixNano()
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Columns as the driver returns them. A NULL is the zero value.
func colInt(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

func colText(v driver.Value) string {
	switch s := v.(type) {
	case string:
		return s
	case []byte:
		return string(s)
	}
	return ""
}

func colDigest(v driver.Value) (d epro.Digest) {
	b, _ := v.([]byte)
	copy(d[:], b)
	return d
}

func joinInstruments(list []string) string { return strings.Join(list, " ") }

func splitInstruments(s string) []string { return strings.Fields(s) }
