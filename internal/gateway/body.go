package gateway

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
)

// checkType refuses another content type than want.
func checkType(r *http.Request, want string) error {
	if isType(r, want) {
		return nil
	}
	return &problem{
		status: http.StatusUnsupportedMediaType, code: codeMediaType,
		detail: "Send the body as " + want + ", in UTF-8, without a content encoding.",
	}
}

// isType says whether the body is of the type and is not encoded. A charset of
// UTF-8 may be named.
func isType(r *http.Request, want string) bool {
	values := r.Header["Content-Type"]
	if len(r.Header["Content-Encoding"]) > 0 || len(values) != 1 {
		return false
	}
	if values[0] == want {
		return true
	}
	kind, params, err := mime.ParseMediaType(values[0])
	if err != nil || kind != want {
		return false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	return true
}

// trusted is how much is allocated on the word of a Content-Length alone. What
// is longer grows as its bytes arrive, so that a header costs a client as much
// as it costs us.
const trusted = 4 << 10

// readBody reads the whole body, at most limit bytes, into a slice of its own
// whose capacity is its length, because a fact keeps it. A longer body is
// refused by its Content-Length alone, or as soon as it is longer.
func readBody(w http.ResponseWriter, r *http.Request, limit int) ([]byte, error) {
	if n := int(r.ContentLength); n >= 0 && n <= trusted {
		body := make([]byte, n)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, unreadable(err)
		}
		return body, nil
	}
	body, err := readGrowing(w, r, limit)
	return bytes.Clone(body), err
}

// readGrowing reads the whole body, at most limit bytes, into a slice that
// grows with it.
func readGrowing(w http.ResponseWriter, r *http.Request, limit int) ([]byte, error) {
	if r.ContentLength > int64(limit) {
		return nil, tooLarge(limit)
	}
	var all bytes.Buffer
	all.Grow(trusted)
	if _, err := all.ReadFrom(http.MaxBytesReader(w, r.Body, int64(limit))); err != nil {
		var over *http.MaxBytesError
		if errors.As(err, &over) {
			return nil, tooLarge(limit)
		}
		return nil, unreadable(err)
	}
	return all.Bytes(), nil
}

func tooLarge(limit int) error {
	text := "64 KiB"
	switch limit {
	case MaxBulkBytes:
		text = "8 MiB or 10,000 lines"
	case maxCommandBytes:
		text = "16 KiB"
	}
	return &problem{
		status: http.StatusRequestEntityTooLarge, code: codeTooLarge, accepted: acceptedFalse, closing: true,
		detail: "The body is longer than " + text + ". Nothing of it was recorded.",
	}
}

func unreadable(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &problem{
			status: http.StatusRequestTimeout, code: codeTooSlow, accepted: acceptedFalse, closing: true,
			detail: "The body did not arrive in time. Nothing was recorded; send the same again.",
		}
	}
	// Mostly nobody is left to read this.
	return &problem{
		status: http.StatusBadRequest, code: codeUnreadable, accepted: acceptedFalse, closing: true,
		detail: "The body ended too early or was not framed as HTTP says. Nothing was recorded; send the same again.",
		fields: fieldProblem("body", "ended too early or was not framed as HTTP says"),
	}
}

func fieldProblem(field, text string) []epro.FieldProblem {
	return []epro.FieldProblem{{Field: field, Problem: text}}
}
