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

// checkType refuses another content type than want. A charset of UTF-8 is taken.
func checkType(r *http.Request, want string) error {
	wrong := &problem{
		status: http.StatusUnsupportedMediaType, code: codeMediaType,
		detail: "Send the body as " + want + ", without a content encoding.",
	}
	if len(r.Header["Content-Encoding"]) > 0 {
		return wrong
	}
	values := r.Header["Content-Type"]
	if len(values) != 1 {
		return wrong
	}
	if values[0] == want {
		return nil
	}
	kind, params, err := mime.ParseMediaType(values[0])
	if err != nil || kind != want {
		return wrong
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return wrong
		}
	}
	return nil
}

func isType(r *http.Request, want string) bool { return checkType(r, want) == nil }

// trusted is how much is allocated on the word of a Content-Length alone. What
// is longer grows as its bytes arrive, so that a header costs a client as much
// as it costs us.
const trusted = 4 << 10

// readBody reads the whole body, at most limit bytes, into a slice of its own
// whose capacity is its length. A longer body is refused by its Content-Length
// alone, or as soon as it is longer.
func readBody(w http.ResponseWriter, r *http.Request, limit int) ([]byte, error) {
	if r.ContentLength > int64(limit) {
		return nil, tooLarge(limit)
	}
	if n := int(r.ContentLength); n >= 0 && n <= trusted {
		body := make([]byte, n)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, unreadable(err)
		}
		return body, nil
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
	return bytes.Clone(all.Bytes()), nil
}

func tooLarge(limit int) error {
	text := "64 KiB"
	if limit != epro.MaxBodyBytes {
		text = "8 MiB or 10,000 lines"
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
