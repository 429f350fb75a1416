package store

import (
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
)

// The cursors of pages are the same on every engine, so that a client that
// turns pages while the tables move to another one does not notice.

// maxLimit bounds a page.
const maxLimit = 1000

// Rows is the page's limit brought into its bounds.
func (p Page) Rows() int { return min(max(p.Limit, 1), maxLimit) }

// List says which list a cursor belongs to: those of others are refused.
type List byte

// The lists.
const (
	ListTrials  List = 'T'
	ListSites   List = 'S'
	ListPeople  List = 'P'
	ListStaff   List = 'F'
	ListReports List = 'R'
	ListOwn     List = 'O'
	ListAudit   List = 'A'
)

// AfterText is the cursor after a text key.
func (l List) AfterText(key string) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte{byte(l)}, key...))
}

// AfterRow is the cursor after a place in the journal.
func (l List) AfterRow(r Ref) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64([]byte{byte(l)}, uint64(RowKey(r))))
}

func (l List) open(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// The decoder skips line ends; a cursor has one form only.
	if err != nil || len(b) < 2 || b[0] != byte(l) || strings.ContainsAny(s, "\r\n") {
		return nil, ErrCursor
	}
	return b[1:], nil
}

// Text reads a cursor after a text key: "" for the first page.
func (l List) Text(cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	b, err := l.open(cursor)
	if err != nil || len(b) > epro.MaxIDLength || epro.ValidID(string(b)) != nil {
		return "", ErrCursor
	}
	return string(b), nil
}

// Row reads a cursor after a row: first for the first page.
func (l List) Row(cursor string, first int64) (int64, error) {
	if cursor == "" {
		return first, nil
	}
	b, err := l.open(cursor)
	if err != nil || len(b) != 8 {
		return 0, ErrCursor
	}
	row := int64(binary.BigEndian.Uint64(b))
	if row <= 0 {
		return 0, ErrCursor
	}
	return row, nil
}

// Cut makes a page of a list that was read one longer than the page: the rows,
// and the cursor of the next page or "".
func Cut[T any](p Page, list []T, cursor func(*T) string) ([]T, string) {
	if len(list) <= p.Rows() {
		return list, ""
	}
	list = list[:p.Rows()]
	return list, cursor(&list[len(list)-1])
}
