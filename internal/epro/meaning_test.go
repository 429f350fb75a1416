package epro_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
)

func meaning(t *testing.T, body string) string {
	t.Helper()
	r, problems := epro.ParseReport([]byte(body))
	if problems != nil {
		t.Fatalf("%s: %v", body, problems)
	}
	return string(r.AppendMeaning(nil))
}

// The vectors below were computed from the comments of DeriveReportID and AppendMeaning by a separate program. They are frozen: digests
// of them lie in journals.
func TestDeriveReportIDVectors(t *testing.T) {
	for _, tt := range []struct {
		trial, participant string
		at                 time.Time
		want               string
	}{
		{"T001", "P-000001", time.Date(2026, 3, 1, 8, 30, 0, 123000000, time.FixedZone("", 8*3600)), "2dd0a528-d561-8bbc-92f8-239742df295d"},
		{"T", "", time.Date(1969, 12, 31, 23, 59, 59, 999999999, time.UTC), "cdf3a09e-139e-8018-8cd9-234d3fdd645a"},
	} {
		if got := epro.DeriveReportID(tt.trial, tt.participant, tt.at).String(); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.trial, tt.participant, got, tt.want)
		}
	}
}

func TestDeriveReportID(t *testing.T) {
	at := time.Date(2026, 3, 1, 8, 30, 0, 1, time.UTC)
	id := epro.DeriveReportID("T001", "P-1", at)
	if id[6]>>4 != 8 || id[8]>>6 != 2 {
		t.Errorf("%v is not a version 8 UUID", id)
	}
	if epro.DeriveReportID("T001", "P-1", at.In(time.FixedZone("", -3600))) != id {
		t.Error("the offset changes the id")
	}
	for name, other := range map[string]epro.UUID{
		"trial":       epro.DeriveReportID("T002", "P-1", at),
		"participant": epro.DeriveReportID("T001", "P-2", at),
		"boundary":    epro.DeriveReportID("T001P", "-1", at),
		"nanosecond":  epro.DeriveReportID("T001", "P-1", at.Add(1)),
		"second":      epro.DeriveReportID("T001", "P-1", at.Add(time.Second)),
	} {
		if other == id {
			t.Errorf("another %s gives the same id", name)
		}
	}
	if n := testing.AllocsPerRun(100, func() { epro.DeriveReportID(strings.Repeat("T", 0)+"T001", "P-1", at) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAppendMeaningVectors(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{typicalBody, "74696465676174652d6d65616e696e672d76310a000000045430303100000008502d303030303031018f4e6a7c1b7d3e9a523f6b8c1d2e4f00000003716f6c000000010000000069a388880754d4c00100000000000000070100000029536c6570742077656c6c2c2061206c6974746c65207061696e20696e20746865206576656e696e672e0000"},
		{body("instrument", `"eq-5d@2"`, "qolScore", "", "comments", `""`, "answers", `{"b":1.50,"a":"\u00e9"}`, "extensions", "{}"), "74696465676174652d6d65616e696e672d76310a000000045430303100000008502d303030303031b216701fe77a8965a9edad5ebff85f470000000565712d3564000000020000000069a388880000000000010000000001000000127b2261223a22c3a9222c2262223a312e357d01000000027b7d"},
	} {
		if got := hex.EncodeToString([]byte(meaning(t, tt.body))); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.body, got, tt.want)
		}
	}
}

func TestMeaningIsOfContentNotSpelling(t *testing.T) {
	full := body("reportId", `"018f4e6a-7c1b-7d3e-9a52-3f6b8c1d2e4f"`, "comments", `"a é"`, "answers", `{"a":10,"b":[{"c":1,"d":"x"}]}`, "extensions", `{"v":1}`)
	same := map[string]string{
		"case of the id":    strings.Replace(full, "018f4e6a", "018F4E6A", 1),
		"offset":            strings.Replace(full, "2026-03-01T08:30:00+08:00", "2026-02-28T19:30:00.000-05:00", 1),
		"escapes":           strings.Replace(full, "a é", `\u0061 \u00E9`, 1),
		"order and numbers": strings.Replace(full, `{"a":10,"b":[{"c":1,"d":"x"}]}`, `{"b": [ {"d":"x", "c":1.0} ], "a": 1E1 }`, 1),
		"default spelled":   strings.Replace(full, "{", `{"instrument":"qol@1",`, 1),
	}
	want := meaning(t, full)
	for name, b := range same {
		if b == full {
			t.Fatalf("%s: nothing was changed", name)
		}
		if meaning(t, b) != want {
			t.Errorf("%s changes the meaning", name)
		}
	}
	seen := map[string]string{want: "the original"}
	for name, b := range map[string]string{
		"score":              strings.Replace(full, `"qolScore":7`, `"qolScore":8`, 1),
		"score 0":            strings.Replace(full, `"qolScore":7`, `"qolScore":0`, 1),
		"trial":              strings.Replace(full, "T001", "T002", 1),
		"participant":        strings.Replace(full, "P-000001", "P-000002", 1),
		"report id":          strings.Replace(full, "018f4e6a", "018f4e6b", 1),
		"instant":            strings.Replace(full, "08:30:00", "08:30:00.000000001", 1),
		"instrument version": strings.Replace(full, "{", `{"instrument":"qol@2",`, 1),
		"instrument":         strings.Replace(full, "{", `{"instrument":"eq@1",`, 1),
		"comments":           strings.Replace(full, "a é", "a e", 1),
		"normalization":      strings.Replace(full, "a é", "a e\u0301", 1),
		"no comments":        strings.Replace(full, `"comments":"a é",`, "", 1),
		"empty comments":     strings.Replace(full, "a é", "", 1),
		"answers":            strings.Replace(full, `"c":1`, `"c":1.5`, 1),
		"empty answers":      strings.Replace(full, `{"a":10,"b":[{"c":1,"d":"x"}]}`, "{}", 1),
		"no answers":         strings.Replace(full, `"answers":{"a":10,"b":[{"c":1,"d":"x"}]},`, "", 1),
		"extensions":         strings.Replace(full, `"v":1`, `"v":2`, 1),
		"no extensions":      strings.Replace(full, `,"extensions":{"v":1}`, "", 1),
		"only extensions":    body("extensions", `{"v":1}`),
		"only answers":       body("answers", `{"v":1}`),
	} {
		m := meaning(t, b)
		if before, ok := seen[m]; ok {
			t.Errorf("%s has the meaning of %s", name, before)
		}
		seen[m] = name
	}
}

// Whether a caller asks before or after writing the derived id into the report, and whether the phone had sent that very id, the
// meaning is one.
func TestMeaningWithDerivedID(t *testing.T) {
	r, _ := epro.ParseReport([]byte(body()))
	before := r.AppendMeaning(nil)
	r.ReportID = r.ID()
	if r.ReportID != epro.DeriveReportID("T001", "P-000001", r.Timestamp) {
		t.Errorf("ID is %v", r.ReportID)
	}
	if !bytes.Equal(r.AppendMeaning(nil), before) {
		t.Error("writing the derived id into the report changes its meaning")
	}
	if sent := meaning(t, body("reportId", `"`+r.ReportID.String()+`"`)); sent != string(before) {
		t.Error("sending the derived id changes the meaning")
	}
}

func TestMeaningOfAReportMadeByHand(t *testing.T) {
	r := epro.Report{Answers: []byte("{")}
	canonical := epro.Report{Answers: []byte("{}")}
	if got := r.AppendMeaning([]byte("x")); !bytes.HasSuffix(got, []byte{2, 0, 0, 0, 1, '{', 0}) || got[0] != 'x' {
		t.Errorf("%x", got)
	}
	if got := canonical.AppendMeaning(nil); !bytes.HasSuffix(got, []byte{1, 0, 0, 0, 2, '{', '}', 0}) {
		t.Errorf("%x", got)
	}
}

func BenchmarkAppendMeaning(b *testing.B) {
	r, _ := epro.ParseReport([]byte(typicalBody))
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = r.AppendMeaning(dst[:0])
	}
}

func BenchmarkDeriveReportID(b *testing.B) {
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		epro.DeriveReportID("T001", "P-000001", at)
	}
}
