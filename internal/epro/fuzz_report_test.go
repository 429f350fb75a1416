package epro_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidegate/tidegate/internal/epro"
)

// wireReport is a report body as the standard library would decode it.
type wireReport struct {
	PatientID  *string         `json:"patientId"`
	TrialID    *string         `json:"trialId"`
	ReportID   *string         `json:"reportId"`
	Timestamp  *string         `json:"timestamp"`
	Instrument *string         `json:"instrument"`
	QoLScore   *int            `json:"qolScore"`
	Comments   *string         `json:"comments"`
	Answers    json.RawMessage `json:"answers"`
	Extensions json.RawMessage `json:"extensions"`
}

// FuzzParseReport compares with encoding/json: what is accepted must decode there to the same values, and what it refuses must be
// refused here.
func FuzzParseReport(f *testing.F) {
	f.Add([]byte(typicalBody))
	f.Add([]byte(body()))
	f.Add([]byte(body("instrument", `"eq-5d@2"`, "qolScore", "", "answers", `{"a":[1,2.5e3,{"b":null}]}`, "extensions", `{"v":"1"}`)))
	f.Add([]byte(body("comments", `"\ud83d\ude00 é \n\u0001"`, "timestamp", `"2024-02-29T23:59:59.123456789-12:45"`)))
	f.Add([]byte(body("comments", "\"\xff\"", "qolScore", "1e1")))
	f.Add([]byte(strings.Replace(body(), "patientId", "PatientId", 1)))
	f.Add([]byte(strings.TrimSuffix(body(), "}") + `,"qol\u0053core":3,"x":[]}`))
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
		f.Add([]byte(body("answers", s)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		sent := bytes.Clone(raw)
		report, problems := epro.ParseReport(raw)
		if !bytes.Equal(raw, sent) {
			t.Fatal("the body was changed")
		}
		named := map[string]bool{}
		for _, p := range problems {
			if p.Field == "" || p.Problem == "" || !utf8.ValidString(p.Field) || named[p.Field] && p.Field != "body" {
				t.Fatalf("problem without a field or text, or a field named twice: %v", problems)
			}
			named[p.Field] = true
		}
		if len(problems) > 0 {
			return
		}
		if !json.Valid(raw) || !utf8.Valid(raw) {
			t.Fatalf("accepted what is not valid JSON in UTF-8: %q", raw)
		}
		var wire wireReport
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&wire); err != nil {
			t.Fatalf("encoding/json refuses: %v", err)
		}
		text := func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		}
		if wire.PatientID == nil || wire.TrialID == nil || wire.Timestamp == nil || report.PatientID != *wire.PatientID || report.TrialID != *wire.TrialID {
			t.Fatal("ids differ")
		}
		if (wire.Comments != nil) != report.HasComments || report.Comments != text(wire.Comments) || utf8.RuneCountInString(report.Comments) > 4000 {
			t.Fatal("comments differ")
		}
		if (wire.QoLScore != nil) != report.HasScore || report.HasScore && (*wire.QoLScore != report.QoLScore || report.QoLScore < 0 || report.QoLScore > 10) {
			t.Fatal("score differs")
		}
		if (wire.ReportID != nil) != report.HasReportID || report.HasReportID && !strings.EqualFold(report.ReportID.String(), *wire.ReportID) {
			t.Fatal("report id differs")
		}
		if !bytes.Equal(wire.Answers, report.Answers) || !bytes.Equal(wire.Extensions, report.Extensions) {
			t.Fatal("answers or extensions differ")
		}
		at, err := time.Parse(time.RFC3339Nano, *wire.Timestamp)
		if err != nil || !at.Equal(report.Timestamp) {
			t.Fatalf("timestamp %q: %v here, %v there (%v)", *wire.Timestamp, report.Timestamp, at, err)
		}
		_, here := report.Timestamp.Zone()
		if _, there := at.Zone(); here != there {
			t.Fatalf("offset %d here, %d there", here, there)
		}
		checkMeaning(t, raw, &report)
	})
}

// checkMeaning checks that the meaning of a report survives being written anew by the standard library: other order, other
// escapes, no white space.
func checkMeaning(t *testing.T, raw []byte, report *epro.Report) {
	form, err := epro.CanonicalJSON(nil, raw)
	if err != nil {
		t.Fatalf("a valid report has no canonical form: %v", err)
	}
	checkForm(t, raw, form)
	again, problems := epro.ParseReport(form)
	if problems != nil {
		// The form may be longer than the original: 1e20 takes 21 bytes. Nothing else may be wrong with it.
		for _, p := range problems {
			if !strings.Contains(p.Problem, "bytes long") {
				t.Fatalf("the canonical form of a valid report is refused: %v", problems)
			}
		}
		return
	}
	if !bytes.Equal(again.AppendMeaning(nil), report.AppendMeaning(nil)) {
		t.Fatal("the canonical form of a report has another meaning")
	}
}

// FuzzCanonicalJSON compares with encoding/json, and CheckObject with CanonicalJSON.
func FuzzCanonicalJSON(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"b":[1.50,-0,1e400,{"z":"\ud83d\ude00","a":"\/"}],"a":{"x":1,"\u0079":2}}`))
	f.Add([]byte(manyNames(20, true)))
	f.Add([]byte(nested(33)))
	f.Fuzz(func(t *testing.T, value []byte) {
		form, err := epro.CanonicalJSON(nil, value)
		object := bytes.HasPrefix(bytes.TrimLeft(value, " \n\r\t"), []byte("{"))
		if checked := epro.CheckObject(value); (checked == nil) != (err == nil && object) {
			t.Fatalf("CheckObject says %v, CanonicalJSON %v", checked, err)
		}
		if err != nil {
			if form != nil {
				t.Fatal("an error and a form")
			}
			if strings.Contains(err.Error(), "not valid JSON") && json.Valid(value) {
				t.Fatalf("encoding/json takes %q: %v", value, err)
			}
			return
		}
		if !json.Valid(value) || !utf8.Valid(value) {
			t.Fatalf("took what is not valid JSON in UTF-8: %q", value)
		}
		checkForm(t, value, form)
	})
}
