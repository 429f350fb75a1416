package gateway_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/content"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

const contractFile = "../../api/openapi.yaml"

// contract is api/openapi.yaml, to which every answer of every test is held,
// and every request that was answered with success.
type contract struct {
	model     *v3.Document
	validator validator.Validator
	schemas   schema_validation.SchemaValidator

	mu   sync.Mutex
	seen map[string]bool // "METHOD path-of-the-request status"
}

var readContract = sync.OnceValues(func() (*contract, error) {
	raw, err := os.ReadFile(contractFile)
	if err != nil {
		return nil, err
	}
	doc, err := libopenapi.NewDocument(raw)
	if err != nil {
		return nil, err
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		return nil, err
	}
	return &contract{
		model: &model.Model,
		validator: validator.NewValidatorFromV3Model(&model.Model, config.WithFormatAssertions(), config.WithoutSecurityValidation(),
			config.WithBodyDecoder("application/x-ndjson", content.DecoderFunc(func(*content.DecodeInput) (any, error) { return "", nil }))),
		schemas: schema_validation.NewSchemaValidator(config.WithFormatAssertions()),
		seen:    map[string]bool{},
	}, nil
})

func loadContract(t testing.TB) *contract {
	t.Helper()
	c, err := readContract()
	must(t, err)
	return c
}

// check holds one exchange to the contract.
func (c *contract) check(t testing.TB, r *http.Request, sent []byte, a *answer) {
	t.Helper()
	if a.status == 405 || (a.status == 404 && strings.Contains(string(a.body), "no-such-path")) {
		return // not in the contract by nature
	}
	c.mu.Lock() // the library is slow on one machine anyway, and its caches are then no question
	defer c.mu.Unlock()
	request := r.Clone(r.Context())
	request.URL.Scheme, request.URL.Host = "", ""
	request.Body = io.NopCloser(bytes.NewReader(sent))
	resp := &http.Response{
		StatusCode: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)), Request: request, ContentLength: int64(len(a.body)),
	}
	if ok, problems := c.validator.GetResponseBodyValidator().ValidateResponseBody(request, resp); !ok {
		for _, p := range problems {
			t.Errorf("%s %s: the answer is not in the contract: %s: %s %v", r.Method, r.URL.Path, p.Message, p.Reason, p.SchemaValidationErrors)
		}
	}
	if a.status < 300 {
		request.Body = io.NopCloser(bytes.NewReader(sent))
		if ok, problems := c.validator.ValidateHttpRequestSync(request); !ok {
			for _, p := range problems {
				t.Errorf("%s %s: the request is not in the contract: %s: %s %v", r.Method, r.URL.Path, p.Message, p.Reason, p.SchemaValidationErrors)
			}
		}
	}
	if a.header.Get("Content-Type") == "application/x-ndjson" {
		for line := range bytes.Lines(a.body) {
			name := "BulkOutcome"
			if bytes.Contains(line, []byte(`"proof"`)) {
				name = "BulkFrame"
			}
			schema, _ := c.model.Components.Schemas.Get(name)
			if ok, problems := c.schemas.ValidateSchemaBytes(schema.Schema(), line); !ok {
				t.Fatalf("a line is not a %s: %s: %v", name, line, problems[0].SchemaValidationErrors)
			}
		}
	}
}

// operations lists the contract as "METHOD /path".
func (c *contract) operations(tag string) []string {
	var list []string
	for path, item := range c.model.Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			if slices.Contains(op.Tags, "admin") == (tag == "admin") {
				list = append(list, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(list)
	return list
}

func TestTheContractNamesEveryRouteAndNoOther(t *testing.T) {
	w := newWorld(t, setup{noSeed: true})
	routes := w.gateway.Routes()
	slices.Sort(routes)
	if want := w.spec.operations(""); !slices.Equal(routes, want) {
		t.Errorf("served:\n%s\nin the contract:\n%s", strings.Join(routes, "\n"), strings.Join(want, "\n"))
	}
	for _, op := range w.spec.operations("admin") {
		method, path, _ := strings.Cut(op, " ")
		rec := httptest.NewRecorder()
		w.gateway.Admin().ServeHTTP(rec, httptest.NewRequest(method, path, nil))
		if rec.Code != 200 {
			t.Errorf("%s: %d %s", op, rec.Code, rec.Body)
		}
	}
}

func TestTheContractIsValid(t *testing.T) {
	raw, err := os.ReadFile(contractFile)
	must(t, err)
	doc, err := libopenapi.NewDocument(raw)
	must(t, err)
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, problems := v.ValidateDocument(); !ok {
		for _, p := range problems {
			t.Errorf("%s: %s %v", p.Message, p.Reason, p.SchemaValidationErrors)
		}
	}
}

// TestTheContractWouldNotice: the check itself can fail.
func TestTheContractWouldNotice(t *testing.T) {
	c := loadContract(t)
	for name, body := range map[string]string{
		"a field more": `{"status":"success","message":"m","reportId":"7b0c1f6e-3a5d-4c1e-9d5b-0a4f6f2f9a11","receivedAt":"2026-03-01T08:30:00Z","committedAt":"2026-03-01T08:30:00Z","durability":"demo","receipt":"receipt1.A","x":1}`,
		"a field less": `{"status":"success","message":"m"}`,
		"a wrong time": `{"status":"success","message":"m","reportId":"7b0c1f6e-3a5d-4c1e-9d5b-0a4f6f2f9a11","receivedAt":"now","committedAt":"2026-03-01T08:30:00Z","durability":"demo","receipt":"receipt1.A"}`,
	} {
		r := httptest.NewRequest("POST", submitPath, strings.NewReader("{}"))
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
		if ok, _ := c.validator.GetResponseBodyValidator().ValidateResponseBody(r, resp); ok {
			t.Errorf("%s was not noticed", name)
		}
		if !json.Valid([]byte(body)) {
			t.Error("bad test")
		}
	}
}
