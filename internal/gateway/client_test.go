package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
)

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// json decodes the body.
func (a *answer) json(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("%s: not JSON: %v", a, err)
	}
	return m
}

// fields are the names in "fields", in order.
func (a *answer) fields(t testing.TB) string {
	t.Helper()
	var p struct{ Fields []epro.FieldProblem }
	must(t, json.Unmarshal(a.body, &p))
	var names []string
	for _, f := range p.Fields {
		names = append(names, f.Field)
		if f.Problem == "" {
			t.Errorf("%s has no problem", f.Field)
		}
	}
	return strings.Join(names, " ")
}

type header struct{ name, value string }

// send makes one request and holds the answer to the contract.
func (w *world) send(method, path, token string, body []byte, headers ...header) *answer {
	w.t.Helper()
	a, err := w.try(method, path, token, body, headers...)
	must(w.t, err)
	return a
}

func (w *world) try(method, path, token string, body []byte, headers ...header) (*answer, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, w.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	} else {
		r.Body = http.NoBody
	}
	for _, h := range headers {
		r.Header.Set(h.name, h.value)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		return a, err
	}
	w.spec.check(w.t, r, body, a)
	return a, nil
}

func (w *world) get(path, token string) *answer { w.t.Helper(); return w.send("GET", path, token, nil) }

func (w *world) post(path, token, body string, headers ...header) *answer {
	w.t.Helper()
	return w.send("POST", path, token, []byte(body), headers...)
}

// report is a valid body.
func report(trial, patient string, id epro.UUID, score int) string {
	return fmt.Sprintf(`{"patientId":%q,"trialId":%q,"reportId":%q,"timestamp":%q,"qolScore":%d,"comments":"fine"}`,
		patient, trial, id, time.Now().Format(time.RFC3339), score)
}

const submitPath = "/v1/patient/report"
