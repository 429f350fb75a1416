package pgstore

import (
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidegate/tidegate/internal/epro"
)

// octets is a text in a bytea column. A NULL reads as "".
type octets string

// BytesValue implements [pgtype.BytesValuer].
func (o octets) BytesValue() ([]byte, error) { return append([]byte{}, o...), nil }

// ScanBytes implements [pgtype.BytesScanner].
func (o *octets) ScanBytes(b []byte) error {
	*o = octets(b)
	return nil
}

func into(s *string) *octets { return (*octets)(s) }

// digest is a hash in a bytea column.
type digest epro.Digest

// ScanBytes implements [pgtype.BytesScanner].
func (d *digest) ScanBytes(b []byte) error {
	copy(d[:], b)
	return nil
}

// raw is a text for an array of bytea.
func raw(s string) []byte { return append([]byte{}, s...) }

// rawOrNull is NULL for "", which a row stores in no byte.
func rawOrNull(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func raws(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = raw(s)
	}
	return out
}

func uuid(u epro.UUID) pgtype.UUID { return pgtype.UUID{Bytes: u, Valid: true} }

func null() pgtype.Int8 { return pgtype.Int8{} }

func integer(n int64) pgtype.Int8 { return pgtype.Int8{Int64: n, Valid: true} }

func nanosOrNull(t time.Time) pgtype.Int8 {
	if t.IsZero() {
		return null()
	}
	return integer(t.UnixNano())
}

// column is one column of rows, as an array for unnest.
func column[R, T any](rows []R, get func(*R) T) []T {
	out := make([]T, len(rows))
	for i := range rows {
		out[i] = get(&rows[i])
	}
	return out
}

func joinInstruments(list []string) string { return strings.Join(list, " ") }

func splitInstruments(s string) []string { return strings.Fields(s) }
