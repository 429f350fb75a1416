package registry

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
)

// Decode reads the body of a command strictly, and checks it by every rule
// that needs no state. Problems name every bad field; with none the value is
// the kind's struct of epro. Names are exact, null is never a value, a field
// may be left out only where the struct says so.
func Decode(kind epro.Kind, raw []byte) (any, []epro.FieldProblem) {
	typ, ok := bodyTypes[kind]
	if !ok {
		return nil, []epro.FieldProblem{{Field: "body", Problem: "is of a kind that is no command"}}
	}
	if err := epro.CheckObject(raw); err != nil {
		problem := "is not valid JSON"
		if j := (*epro.JSONError)(nil); errors.As(err, &j) {
			problem = j.Problem
		}
		return nil, []epro.FieldProblem{{Field: "body", Problem: problem}}
	}
	if typ == reflect.TypeFor[json.RawMessage]() {
		return json.RawMessage(slices.Clone(raw)), nil
	}
	var sent map[string]json.RawMessage
	if err := json.Unmarshal(raw, &sent); err != nil {
		return nil, []epro.FieldProblem{{Field: "body", Problem: "is not valid JSON"}}
	}
	value := reflect.New(typ).Elem()
	var problems []epro.FieldProblem
	for i := range typ.NumField() {
		name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		text, found := sent[name]
		delete(sent, name)
		switch {
		case !found && options == "omitempty":
		case !found:
			problems = append(problems, epro.FieldProblem{Field: name, Problem: "is missing"})
		case string(text) == "null" || json.Unmarshal(text, value.Field(i).Addr().Interface()) != nil:
			problems = append(problems, epro.FieldProblem{Field: name, Problem: "must be " + wanted(typ.Field(i).Type)})
		}
	}
	problems = append(problems, unknown(sent)...)
	body := value.Interface()
	for _, p := range Check(kind, body) {
		if !slices.ContainsFunc(problems, func(q epro.FieldProblem) bool { return q.Field == p.Field }) {
			problems = append(problems, p)
		}
	}
	if problems != nil {
		return nil, problems
	}
	return body, nil
}

// wanted says what a field of a Go type is in JSON.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[epro.UUID]():
		return strings.TrimPrefix(epro.ErrUUID.Error(), "must be ")
	case t.Kind() == reflect.String:
		return "a string"
	case t.Kind() == reflect.Slice:
		return "an array of strings"
	case t.Kind() == reflect.Uint32:
		return "a whole number from 0 to " + strconv.FormatUint(1<<32-1, 10)
	}
	return "a whole number from 0 on"
}

// unknown names the fields that no rule knows, in order; a name that may be
// text put in the wrong place is not repeated.
func unknown(sent map[string]json.RawMessage) []epro.FieldProblem {
	var problems []epro.FieldProblem
	hidden := false
	for name := range sent {
		if newID(name) != "" {
			hidden = true
			continue
		}
		problems = append(problems, epro.FieldProblem{Field: name, Problem: "is not a field of this command"})
	}
	slices.SortFunc(problems, func(a, b epro.FieldProblem) int { return strings.Compare(a.Field, b.Field) })
	if hidden {
		problems = append(problems, epro.FieldProblem{Field: "body", Problem: "has an unknown field, not shown because its name is not made of letters, digits and . _ -"})
	}
	return problems
}
