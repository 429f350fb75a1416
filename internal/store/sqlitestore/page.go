package sqlitestore

import (
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// maxLimit bounds a page.
const maxLimit = 1000

// limit brings the page's limit into its bounds.
func limit(p store.Page) int { return min(max(p.Limit, 1), maxLimit) }

// Lists whose cursors must not be mixed up.
const (
	listTrials = 'T'
	listSites  = 'S'
	listPeople = 'P'
	listStaff  = 'F'
	listReport = 'R'
	listOwn    = 'O'
	listAudit  = 'A'
)

// textCursor is the cursor after a text key.
func textCursor(list byte, key string) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte{list}, key...))
}

// rowCursor is the cursor after a row.
func rowCursor(list byte, row int64) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64([]byte{list}, uint64(row)))
}

func openCursor(list byte, s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// The decoder skips line ends; a cursor has one form only.
	if err != nil || len(b) < 2 || b[0] != list || strings.ContainsAny(s, "\r\n") {
		return nil, store.ErrCursor
	}
	return b[1:], nil
}

// afterText reads a text cursor: "" for the first page.
func afterText(list byte, s string) (string, error) {
	if s == "" {
		return "", nil
	}
	b, err := openCursor(list, s)
	if err != nil || len(b) > epro.MaxIDLength || epro.ValidID(string(b)) != nil {
		return "", store.ErrCursor
	}
	return string(b), nil
}

// afterRow reads a row cursor: first for the first page.
func afterRow(list byte, s string, first int64) (int64, error) {
	if s == "" {
		return first, nil
	}
	b, err := openCursor(list, s)
	if err != nil || len(b) != 8 {
		return 0, store.ErrCursor
	}
	row := int64(binary.BigEndian.Uint64(b))
	if row <= 0 {
		return 0, store.ErrCursor
	}
	return row, nil
}

// cut makes a page of a list that was read one longer than the limit: the page,
// and the cursor of the next one or "".
func cut[T any](list []T, limit int, cursor func(T) string) ([]T, string) {
	if len(list) <= limit {
		return list, ""
	}
	list = list[:limit]
	return list, cursor(list[limit-1])
}
