package sqlitestore

import (
	"database/sql"
	"database/sql/driver"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// Bits of a report's flags.
const (
	flagClockApart = 1
	flagErased     = 2
	flagTold       = 4
)

func nullTime(ns sql.NullInt64) time.Time {
	if !ns.Valid {
		return time.Time{}
	}
	return store.JournalTime(ns.Int64)
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
