package gateway

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// Bounds of a page.
const (
	defaultLimit = 500
	maxLimit     = 1000
)

// params reads query parameters strictly: a name that is not known, or is given
// twice, is an error, because a filter that is silently not applied shows too much.
type params struct {
	values   url.Values
	problems []epro.FieldProblem
}

func parseParams(r *http.Request, known ...string) *params {
	q := &params{}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		q.problems = fieldProblem("query", "is not a valid query string")
		return q
	}
	q.values = values
	hidden := false
	for name, v := range values {
		switch {
		case !slices.Contains(known, name):
			hidden = true
		case len(v) > 1:
			q.bad(name, "is given more than once")
		}
	}
	if hidden {
		q.bad("query", "has a parameter that is not known here")
	}
	slices.SortFunc(q.problems, func(a, b epro.FieldProblem) int { return strings.Compare(a.Field, b.Field) })
	return q
}

func (q *params) bad(field, text string) {
	q.problems = append(q.problems, epro.FieldProblem{Field: field, Problem: text})
}

// page reads limit and cursor.
func (q *params) page() store.Page {
	p := store.Page{Limit: defaultLimit, After: q.values.Get("cursor")}
	if text := q.values.Get("limit"); q.values.Has("limit") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			q.bad("limit", "must be a whole number from 1 to 1000")
		}
		p.Limit = n
	}
	if len(p.After) > 512 {
		q.bad("cursor", "is not one that this server gave out; begin again without it")
	}
	return p
}

// id reads the id of a participant or the like, "" if it is not given.
func (q *params) id(name string) string {
	v := q.values.Get(name)
	if q.values.Has(name) && epro.ValidID(v) != nil {
		q.bad(name, "must be 1 to 64 printable ASCII characters that do not start or end with a space")
	}
	return v
}

// oneOf reads a word of a list, "" if it is not given.
func (q *params) oneOf(name string, words ...string) string {
	v := q.values.Get(name)
	if q.values.Has(name) && !slices.Contains(words, v) {
		text := "must be "
		for i, w := range words {
			if i > 0 {
				text += " or "
			}
			text += w
		}
		q.bad(name, text)
	}
	return v
}

// err is the problem with the parameters, nil if there is none.
func (q *params) err() error {
	if q.problems == nil {
		return nil
	}
	return &problem{
		status: http.StatusBadRequest, code: codeInvalid, fields: q.problems,
		detail: "The query is not valid; every parameter that is wrong is listed in fields.",
	}
}

// answerJSON writes v. It is for answers off the way of a report.
func answerJSON(c *gin.Context, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.Writer.Header()["Content-Type"] = headerJSON
	c.Writer.Header()["Content-Length"] = []string{strconv.Itoa(len(b) + 1)}
	c.Writer.WriteHeader(status)
	_, _ = c.Writer.Write(append(b, '\n')) // an error means that the client went away
	return nil
}

// mapped is each element through fn; never nil, so that an empty list is [].
func mapped[A, B any](list []A, fn func(*A) B) []B {
	out := make([]B, len(list))
	for i := range list {
		out[i] = fn(&list[i])
	}
	return out
}
