package epro_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
)

const typicalBody = `{"reportId":"018f4e6a-7c1b-7d3e-9a52-3f6b8c1d2e4f","patientId":"P-000001","trialId":"T001",` +
	`"timestamp":"2026-03-01T08:30:00.123+08:00","qolScore":7,"comments":"Slept well, a little pain in the evening."}`

// body builds a valid report body with some members replaced (raw JSON) or, with "", left out; other members are appended.
func body(changes ...string) string {
	members := [][2]string{
		{"patientId", `"P-000001"`},
		{"trialId", `"T001"`},
		{"timestamp", `"2026-03-01T08:30:00+08:00"`},
		{"qolScore", `7`},
	}
	for i := 0; i < len(changes); i += 2 {
		at := slices.IndexFunc(members, func(m [2]string) bool { return m[0] == changes[i] })
		if at < 0 {
			at = len(members)
			members = append(members, [2]string{changes[i]})
		}
		members[at][1] = changes[i+1]
	}
	var parts []string
	for _, m := range members {
		if m[1] != "" {
			parts = append(parts, `"`+m[0]+`":`+m[1])
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func nested(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }

func fieldsOf(problems []epro.FieldProblem) []string {
	names := []string{}
	for _, p := range problems {
		names = append(names, p.Field)
	}
	slices.Sort(names)
	return names
}

func TestParseReportRefuses(t *testing.T) {
	comments := func(s string) string { return body("comments", s) }
	stamp := func(s string) string { return body("timestamp", `"`+s+`"`) }
	tests := []struct{ name, body, fields, says string }{
		{"empty", "", "body", "is empty"},
		{"white space only", " \n", "body", "is empty"},
		{"not JSON", "hello", "body", "one JSON object"},
		{"form data", "patientId=P-000001&qolScore=3", "body", "one JSON object"},
		{"array", "[" + body() + "]", "body", "one JSON object"},
		{"null body", "null", "body", "one JSON object"},
		{"byte order mark", "\xef\xbb\xbf" + body(), "body", "byte order mark"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "body", "one JSON object"},
		{"cut", body()[:40], "body", "ends too early"},
		{"cut in escape", `{"patientId":"\u00`, "body", "not valid JSON"},
		{"trailing object", body() + body(), "body", "more bytes"},
		{"trailing NUL", body() + "\x00", "body", "more bytes"},
		{"trailing brace", body() + "}", "body", "more bytes"},
		{"trailing comma", strings.TrimSuffix(body(), "}") + ",}", "body", "field name"},
		{"leading comma", "{," + body()[1:], "body", "field name"},
		{"single quotes", strings.ReplaceAll(body(), `"`, `'`), "body", "field name"},
		{"bare name", strings.Replace(body(), `"trialId"`, `trialId`, 1), "body", "field name"},
		{"no colon", strings.Replace(body(), `"qolScore":`, `"qolScore" `, 1), "body", "colon"},
		{"no comma", strings.Replace(body(), `,"qolScore"`, ` "qolScore"`, 1), "body", "comma"},
		{"comment", "/* x */" + body(), "body", ""},
		{"NaN", body("qolScore", "NaN"), "body", "a value"},
		{"leading zero", body("qolScore", "07"), "body", "comma"},
		{"leading plus", body("qolScore", "+7"), "body", "a value"},
		{"bare point", body("qolScore", "7."), "body", "digit"},
		{"upper-case literal", body("qolScore", "NULL"), "body", "a value"},
		{"raw control character", comments("\"a\x01b\""), "body", "control character"},
		{"raw line feed", comments("\"a\nb\""), "body", "control character"},
		{"unknown escape", comments(`"a\x41"`), "body", "escape"},
		{"bad unicode escape", comments(`"a\u00zz"`), "body", "escape"},
		{"bad unicode escape after a high surrogate", comments(`"\ud83d\u00zz"`), "body", "escape"},
		{"a fault hides nothing as a field", `{"qolScore":11,"patientId":`, "body", "ends too early"},

		{"empty object", "{}", "patientId qolScore timestamp trialId", "is missing"},
		{"no patientId", body("patientId", ""), "patientId", "is missing"},
		{"no trialId", body("trialId", ""), "trialId", "is missing"},
		{"no timestamp", body("timestamp", ""), "timestamp", "is missing"},
		{"no score", body("qolScore", ""), "qolScore", "is missing"},

		{"unknown field", body("mood", "3"), "mood", "extensions"},
		{"unknown field twice", strings.TrimSuffix(body("mood", "3"), "}") + `,"mood":4}`, "mood", "not a field"},
		{"unknown field that is no name", body("I feel sad", "3"), "body", "not shown"},
		{"unknown field with control character", body(`a\u0001`, "3"), "body", "not shown"},
		{"empty name", body("", "3"), "body", "not shown"},
		{"name of invalid UTF-8", body("a\xff", "3"), "body", "not shown"},
		{"name with a lone surrogate", body(`patientId\ud800`, "3"), "body", "not shown"},
		{"duplicate, same value", strings.TrimSuffix(body(), "}") + `,"qolScore":7}`, "qolScore", "more than once"},
		{"duplicate under an escaped name", strings.TrimSuffix(body(), "}") + `,"qol\u0053core":7}`, "qolScore", "more than once"},
		{"duplicate of another type", strings.TrimSuffix(body(), "}") + `,"trialId":{"a":[1,2]}}`, "trialId", "more than once"},
		{"wrong case", strings.Replace(body(), "patientId", "PatientId", 1), "PatientId", "write patientId"},
		{"wrong style", strings.Replace(body(), "patientId", "patient_id", 1), "patient_id", "write patientId"},
		{"wrong case of score", strings.Replace(body(), "qolScore", "QOLSCORE", 1), "QOLSCORE", "write qolScore"},
		{"wrong case beside the right one", body("QolScore", "3"), "QolScore", "write qolScore"},

		{"patientId number", body("patientId", "1"), "patientId", "must be a string"},
		{"patientId null", body("patientId", "null"), "patientId", "not null"},
		{"patientId array", body("patientId", `["P"]`), "patientId", "must be a string"},
		{"patientId empty", body("patientId", `""`), "patientId", "1 to 64"},
		{"patientId 65", body("patientId", `"`+strings.Repeat("x", 65)+`"`), "patientId", "1 to 64"},
		{"patientId 65 escaped", body("patientId", `"`+strings.Repeat(`\u0041`, 65)+`"`), "patientId", "1 to 64"},
		{"patientId control", body("patientId", `"P\n1"`), "patientId", "printable"},
		{"patientId NUL", body("patientId", `"P\u00001"`), "patientId", "U+0000"},
		{"patientId DEL", body("patientId", "\"P\x7f1\""), "patientId", "printable"},
		{"patientId accent", body("patientId", `"Pé"`), "patientId", "printable"},
		{"patientId invalid UTF-8", body("patientId", "\"P\xff\""), "patientId", "UTF-8"},
		{"patientId leading space", body("patientId", `" P"`), "patientId", "space"},
		{"trialId trailing space", body("trialId", `"T "`), "trialId", "space"},
		{"trialId bool", body("trialId", "true"), "trialId", "must be a string"},

		{"score -1", body("qolScore", "-1"), "qolScore", "0 to 10"},
		{"score 11", body("qolScore", "11"), "qolScore", "0 to 10"},
		{"score 100", body("qolScore", "100"), "qolScore", "0 to 10"},
		{"score huge", body("qolScore", strings.Repeat("9", 400)), "qolScore", "0 to 10"},
		{"score overflows to 0", body("qolScore", "18446744073709551616"), "qolScore", "0 to 10"},
		{"score 7.5", body("qolScore", "7.5"), "qolScore", "fraction"},
		{"score 7.0", body("qolScore", "7.0"), "qolScore", "fraction"},
		{"score 1e1", body("qolScore", "1e1"), "qolScore", "exponent"},
		{"score 1e99999999999", body("qolScore", "1e99999999999"), "qolScore", "exponent"},
		{"score -0", body("qolScore", "-0"), "qolScore", "sign"},
		{"score string", body("qolScore", `"7"`), "qolScore", "quotes"},
		{"score true", body("qolScore", "true"), "qolScore", "must be a number"},
		{"score null", body("qolScore", "null"), "qolScore", "not null"},
		{"score object", body("qolScore", `{"v":7}`), "qolScore", "must be a number"},

		{"timestamp number", body("timestamp", "1767225600"), "timestamp", "must be a string"},
		{"timestamp no offset", stamp("2026-03-01T08:30:00"), "timestamp", "offset"},
		{"timestamp fraction no offset", stamp("2026-03-01T08:30:00.5"), "timestamp", "offset"},
		{"timestamp date only", stamp("2026-03-01"), "timestamp", "RFC 3339"},
		{"timestamp no seconds", stamp("2026-03-01T08:30+08:00"), "timestamp", "RFC 3339"},
		{"timestamp space", stamp("2026-03-01 08:30:00Z"), "timestamp", "RFC 3339"},
		{"timestamp lower t", stamp("2026-03-01t08:30:00Z"), "timestamp", "capital"},
		{"timestamp lower z", stamp("2026-03-01T08:30:00z"), "timestamp", "capital"},
		{"timestamp Feb 30", stamp("2026-02-30T08:30:00Z"), "timestamp", "date"},
		{"timestamp Feb 29", stamp("2026-02-29T08:30:00Z"), "timestamp", "date"},
		{"timestamp Feb 29 1900", stamp("1900-02-29T08:30:00Z"), "timestamp", "date"},
		{"timestamp Apr 31", stamp("2026-04-31T08:30:00Z"), "timestamp", "date"},
		{"timestamp month 0", stamp("2026-00-10T08:30:00Z"), "timestamp", "date"},
		{"timestamp month 13", stamp("2026-13-10T08:30:00Z"), "timestamp", "date"},
		{"timestamp day 0", stamp("2026-03-00T08:30:00Z"), "timestamp", "date"},
		{"timestamp hour 24", stamp("2026-03-01T24:00:00Z"), "timestamp", "time of day"},
		{"timestamp minute 60", stamp("2026-03-01T08:60:00Z"), "timestamp", "time of day"},
		{"timestamp second 61", stamp("2026-03-01T08:30:61Z"), "timestamp", "time of day"},
		{"timestamp leap second", stamp("2016-12-31T23:59:60Z"), "timestamp", "leap second"},
		{"timestamp ten digits", stamp("2026-03-01T08:30:00.0123456789Z"), "timestamp", "9 digits"},
		{"timestamp no digits", stamp("2026-03-01T08:30:00.Z"), "timestamp", "9 digits"},
		{"timestamp comma", stamp("2026-03-01T08:30:00,5Z"), "timestamp", "RFC 3339"},
		{"timestamp offset hour", stamp("2026-03-01T08:30:00+24:00"), "timestamp", "offset"},
		{"timestamp offset minute", stamp("2026-03-01T08:30:00+08:60"), "timestamp", "offset"},
		{"timestamp offset no colon", stamp("2026-03-01T08:30:00+0800"), "timestamp", "RFC 3339"},
		{"timestamp offset seconds", stamp("2026-03-01T08:30:00+08:00:00"), "timestamp", "RFC 3339"},
		{"timestamp two zones", stamp("2026-03-01T08:30:00Z+08:00"), "timestamp", "RFC 3339"},
		{"timestamp trailing space", stamp("2026-03-01T08:30:00Z "), "timestamp", "RFC 3339"},
		{"timestamp letters", stamp("2O26-03-01T08:30:00Z"), "timestamp", "RFC 3339"},
		{"timestamp five-digit year", stamp("12026-03-01T08:30:00Z"), "timestamp", "RFC 3339"},
		{"timestamp year -1 in UTC", stamp("0000-01-01T00:00:00+00:01"), "timestamp", "years"},
		{"timestamp year 10000 in UTC", stamp("9999-12-31T23:59:59-00:01"), "timestamp", "years"},
		{"timestamp empty", stamp(""), "timestamp", "RFC 3339"},
		{"timestamp very long", stamp(strings.Repeat("2", 500)), "timestamp", "RFC 3339"},

		{"comments number", comments("1"), "comments", "must be a string"},
		{"comments null", comments("null"), "comments", "leave the field out"},
		{"comments 4001", comments(`"` + strings.Repeat("é", 4001) + `"`), "comments", "4,000"},
		{"comments 4001 escaped", comments(`"` + strings.Repeat(`\ud83d\ude00`, 4001) + `"`), "comments", "4,000"},
		{"comments invalid UTF-8", comments("\"a\xc3\x28\""), "comments", "UTF-8"},
		{"comments overlong", comments("\"\xc0\xaf\""), "comments", "UTF-8"},
		{"comments encoded surrogate", comments("\"\xed\xa0\x80\""), "comments", "UTF-8"},
		{"comments lone high surrogate", comments(`"\ud83d"`), "comments", "surrogate"},
		{"comments high surrogate then letter", comments(`"\ud83d\u0041"`), "comments", "surrogate"},
		{"comments lone low surrogate", comments(`"\ude00"`), "comments", "surrogate"},
		{"comments NUL", comments(`"a\u0000b"`), "comments", "U+0000"},

		{"reportId not a UUID", body("reportId", `"42"`), "reportId", "UUID"},
		{"reportId nil", body("reportId", `"00000000-0000-0000-0000-000000000000"`), "reportId", "nil UUID"},
		{"reportId braces", body("reportId", `"{018f4e6a-7c1b-7d3e-9a52-3f6b8c1d2e4f}"`), "reportId", "UUID"},
		{"reportId null", body("reportId", "null"), "reportId", "leave the field out"},
		{"reportId number", body("reportId", "7"), "reportId", "must be a string"},

		{"instrument bare", body("instrument", `"qol"`), "instrument", "id@version"},
		{"instrument no id", body("instrument", `"@1"`), "instrument", "id@version"},
		{"instrument capital", body("instrument", `"QoL@1"`), "instrument", "id@version"},
		{"instrument version 0", body("instrument", `"qol@0"`), "instrument", "id@version"},
		{"instrument leading zero", body("instrument", `"qol@01"`), "instrument", "id@version"},
		{"instrument version too large", body("instrument", `"qol@4294967296"`), "instrument", "id@version"},
		{"instrument two ats", body("instrument", `"qol@1@2"`), "instrument", "id@version"},
		{"instrument 33", body("instrument", `"`+strings.Repeat("a", 33)+`@1"`), "instrument", "id@version"},
		{"instrument number", body("instrument", "1"), "instrument", "must be a string"},
		{"other instrument, no answers", body("instrument", `"eq-5d@1"`, "qolScore", ""), "qolScore", "answers"},
		{"qol with answers, no score", body("answers", `{"a":1}`, "qolScore", ""), "qolScore", "answers"},
		{"other version of qol, no score", body("instrument", `"qol@2"`, "answers", `{"a":1}`, "qolScore", ""), "qolScore", "answers"},
		{"other instrument, bad answers", body("instrument", `"eq-5d@1"`, "answers", "[]", "qolScore", ""), "answers", "an object"},
		{"bad instrument with answers", body("instrument", `"eq-5d"`, "answers", "{}", "qolScore", ""), "instrument", "id@version"},

		{"instrument of a wrong type with answers", body("instrument", "1", "answers", "{}", "qolScore", ""), "instrument", "must be a string"},
		{"misspelled instrument with answers", body("Instrument", `"eq-5d@1"`, "answers", "{}", "qolScore", ""), "Instrument", "write instrument"},

		{"answers array", body("answers", "[1]"), "answers", "must be an object"},
		{"answers string", body("answers", `"{}"`), "answers", "must be an object"},
		{"answers null", body("answers", "null"), "answers", "leave the field out"},
		{"answers duplicate inside", body("answers", `{"a":[{"b":1,"\u0062":2}]}`), "answers", "one name twice"},
		{"answers many names, one twice", body("answers", manyNames(40, true)), "answers", "one name twice"},
		{"answers invalid UTF-8", body("answers", "{\"a\":\"\xff\"}"), "answers", "UTF-8"},
		{"answers name of invalid UTF-8", body("answers", "{\"\xff\":1}"), "answers", "UTF-8"},
		{"answers NUL", body("answers", `{"a\u0000":1}`), "answers", "U+0000"},
		{"answers number", body("answers", `{"a":1e1000000001}`), "answers", "exponent"},
		{"answers 32769", body("answers", `{"a":"`+strings.Repeat("x", 32<<10-7)+`"}`), "answers", "32,768"},
		{"answers deep", body("answers", nested(32)), "answers", "32 levels"},
		{"answers very deep", body("answers", `{"a":`+strings.Repeat("[", 60_000)), "answers", "32 levels"},
		{"extensions 4097", body("extensions", `{"a":"`+strings.Repeat("x", 4<<10-7)+`"}`), "extensions", "4,096"},
		{"extensions deep", body("extensions", nested(32)), "extensions", "32 levels"},
		{"extensions not an object", body("extensions", "1"), "extensions", "must be an object"},
		{"unknown field deep", body("x", strings.Repeat("[", 60_000)), "body", "32 levels"},
		{"score deep", body("qolScore", strings.Repeat("[", 60_000)), "body", "32 levels"},

		{
			"many at once", body("patientId", "1", "trialId", `""`, "timestamp", `"x"`, "qolScore", "11", "comments", "null", "reportId", `"x"`,
				"instrument", `"x"`, "answers", "1", "extensions", "2", "mood", "3", "PatientId", `"P"`),
			"PatientId answers comments extensions instrument mood patientId qolScore reportId timestamp trialId", "must be",
		},
		{"score missing and others bad", body("qolScore", "", "timestamp", `"2026-03-01"`, "x", "1"), "qolScore timestamp x", "is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			report, problems := epro.ParseReport([]byte(tt.body))
			if got := strings.Join(fieldsOf(problems), " "); got != tt.fields {
				t.Errorf("fields named: %q, want %q (%v)", got, tt.fields, problems)
			}
			if !slices.ContainsFunc(problems, func(p epro.FieldProblem) bool { return strings.Contains(p.Problem, tt.says) }) {
				t.Errorf("no problem says %q: %v", tt.says, problems)
			}
			if report.PatientID != "" || report.Comments != "" {
				t.Error("a refused body gave a report that is not empty")
			}
			if len(tt.body) < 400 && json.Valid([]byte(tt.body)) && strings.HasPrefix(fmt.Sprint(problems), "[{body is not valid JSON") {
				t.Errorf("valid JSON called invalid: %v", problems)
			}
		})
	}
}

func manyNames(n int, twice bool) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"item%d":%d,`, i, i)
	}
	if twice {
		b.WriteString(`"item\u0030":0,`)
	}
	return "{" + strings.TrimSuffix(b.String(), ",") + "}"
}

// A body that is refused for what it is has no place to point at; one that goes wrong on the way has.
func TestStructureProblemsSayWhere(t *testing.T) {
	for b, want := range map[string]string{
		"":                   "is empty; send one JSON object",
		"[]":                 "must be one JSON object",
		"\xef\xbb\xbf{}":     "starts with a byte order mark; send UTF-8 without one",
		`{"patientId":"x",}`: "is not valid JSON: a field name in double quotes was expected (at byte 17)",
		body() + "x":         fmt.Sprintf("has more bytes after its JSON value; send exactly one (at byte %d)", len(body())),
	} {
		if _, problems := epro.ParseReport([]byte(b)); len(problems) != 1 || problems[0] != (epro.FieldProblem{Field: "body", Problem: want}) {
			t.Errorf("%q: %v, want %q", b, problems, want)
		}
	}
}

func TestParseReportListsUnknownFieldsWithinBounds(t *testing.T) {
	_, problems := epro.ParseReport([]byte(manyNames(5000, false)))
	if len(problems) > 30 {
		t.Errorf("%d problems for one body", len(problems))
	}
	if last := problems[len(problems)-1]; last.Field != "body" || !strings.Contains(last.Problem, "more unknown fields") {
		t.Errorf("last problem does not say that there are more: %v", last)
	}
}

func TestProblemsEchoNoValue(t *testing.T) {
	const secret = "zanzibar"
	quoted := `"` + secret + `"`
	bodies := []string{secret, "{" + secret, body("comments", secret), body(secret+" "+secret, "1"), body("comments", `"`+secret+`\q"`)}
	for _, f := range []string{"patientId", "trialId", "timestamp", "qolScore", "comments", "reportId", "instrument", "answers", "extensions", "x"} {
		bodies = append(bodies, body(f, quoted), body(f, `{"`+secret+`":"\ud800"}`), body(f, `["`+secret+`\u0000"]`), body(f, `" `+secret+`\u0000"`))
	}
	for _, b := range bodies {
		_, problems := epro.ParseReport([]byte(b))
		if text := fmt.Sprint(problems); strings.Contains(text, secret) {
			t.Errorf("the problems repeat a value: %s", text)
		}
	}
	if err := epro.CheckObject([]byte(`{"` + secret)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("CheckObject: %v", err)
	}
}

func TestParseReportAccepts(t *testing.T) {
	report := func(change func(*epro.Report)) epro.Report {
		r := epro.Report{
			PatientID: "P-000001", TrialID: "T001", Timestamp: time.Date(2026, 3, 1, 8, 30, 0, 0, time.FixedZone("", 8*3600)),
			Instrument: "qol", InstrumentVersion: 1, HasScore: true, QoLScore: 7,
		}
		change(&r)
		return r
	}
	score := func(n int) func(*epro.Report) { return func(r *epro.Report) { r.QoLScore = n } }
	comment := func(s string) func(*epro.Report) {
		return func(r *epro.Report) { r.HasComments, r.Comments = true, s }
	}
	at := func(t time.Time) func(*epro.Report) { return func(r *epro.Report) { r.Timestamp = t } }
	id, _ := epro.ParseUUID("018f4e6a-7c1b-7d3e-9a52-3f6b8c1d2e4f")
	long := strings.Repeat("é", 4000)
	tests := []struct {
		name, body string
		want       epro.Report
	}{
		{"as in the contract", body(), report(func(*epro.Report) {})},
		{"score 0", body("qolScore", "0"), report(score(0))},
		{"score 10", body("qolScore", "10"), report(score(10))},
		{
			"white space", " \r\n\t" + strings.NewReplacer(":", " : ", ",", " ,\n").Replace(body("timestamp", `"2026-03-01T08\u003a30\u003a00+08\u003a00"`)) + "\n ",
			report(func(*epro.Report) {}),
		},
		{
			"escaped name and value", strings.NewReplacer("patientId", `patient\u0049d`, "P-000001", `\u0050-00000\u0031`).Replace(body()),
			report(func(*epro.Report) {}),
		},
		{"patientId 64, all escaped", body("patientId", `"`+strings.Repeat(`\u0041`, 64)+`"`), report(func(r *epro.Report) { r.PatientID = strings.Repeat("A", 64) })},
		{"id with quotes", body("patientId", `"a\"b\\c d"`), report(func(r *epro.Report) { r.PatientID = `a"b\c d` })},
		{"UTC", body("timestamp", `"2026-03-01T08:30:00Z"`), report(at(time.Date(2026, 3, 1, 8, 30, 0, 0, time.UTC)))},
		{
			"nine digits", body("timestamp", `"2026-03-01T08:30:00.123456789-03:30"`),
			report(at(time.Date(2026, 3, 1, 8, 30, 0, 123456789, time.FixedZone("", -3*3600-1800)))),
		},
		{
			"one digit", body("timestamp", `"2024-02-29T23:59:59.5+05:45"`),
			report(at(time.Date(2024, 2, 29, 23, 59, 59, 500000000, time.FixedZone("", 5*3600+2700)))),
		},
		{"unknown local offset", body("timestamp", `"2000-02-29T00:00:00-00:00"`), report(at(time.Date(2000, 2, 29, 0, 0, 0, 0, time.FixedZone("", 0))))},
		{"largest offset", body("timestamp", `"2026-03-01T08:30:00-23:59"`), report(at(time.Date(2026, 3, 1, 8, 30, 0, 0, time.FixedZone("", -(23*60+59)*60))))},
		{"first instant", body("timestamp", `"0000-01-01T00:00:00Z"`), report(at(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)))},
		{"last instant", body("timestamp", `"9999-12-31T23:59:59.999999999Z"`), report(at(time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)))},
		{"comments empty", body("comments", `""`), report(comment(""))},
		{"comments 4000", body("comments", `"`+long+`"`), report(comment(long))},
		{"comments 4000 emoji escaped", body("comments", `"`+strings.Repeat(`\uD83D\ude00`, 4000)+`"`), report(comment(strings.Repeat("😀", 4000)))},
		{
			"comments with every escape", body("comments", `"\"\\\/\b\f\n\r\t\u0001\u007f\u00e9\u4e2d\ud83d\ude00 😀"`),
			report(comment("\"\\/\b\f\n\r\t\x01\x7fé中😀 😀")),
		},
		{"comments in Chinese", body("comments", `"今天感觉好多了"`), report(comment("今天感觉好多了"))},
		{"U+FFFD is a character", body("comments", `"\ufffd�"`), report(comment("��"))},
		{"reportId", body("reportId", `"018F4E6A-7c1b-7d3e-9a52-3f6b8c1d2e4f"`), report(func(r *epro.Report) { r.HasReportID, r.ReportID = true, id })},
		{
			"instrument", body("instrument", `"eq-5d-5l@4294967295"`),
			report(func(r *epro.Report) { r.Instrument, r.InstrumentVersion = "eq-5d-5l", 4294967295 }),
		},
		{"answers instead of a score", body("instrument", `"eq-5d@2"`, "qolScore", "", "answers", `{ "mobility": 1.50 }`), report(func(r *epro.Report) {
			r.Instrument, r.InstrumentVersion, r.HasScore, r.QoLScore = "eq-5d", 2, false, 0
			r.Answers = []byte(`{ "mobility": 1.50 }`)
		})},
		{"answers beside a score", body("answers", "{}"), report(func(r *epro.Report) { r.Answers = []byte("{}") })},
		{"many answers", body("answers", manyNames(40, false)), report(func(r *epro.Report) { r.Answers = []byte(manyNames(40, false)) })},
		{
			"same name in different objects", body("answers", `{"a":{"a":[{"a":1},{"a":1}]}}`),
			report(func(r *epro.Report) { r.Answers = []byte(`{"a":{"a":[{"a":1},{"a":1}]}}`) }),
		},
		{"answers at the depth bound", body("answers", nested(31)), report(func(r *epro.Report) { r.Answers = []byte(nested(31)) })},
		{
			"answers at the size bound", body("answers", `{"a":"`+strings.Repeat("x", 32<<10-8)+`"}`),
			report(func(r *epro.Report) { r.Answers = []byte(`{"a":"` + strings.Repeat("x", 32<<10-8) + `"}`) }),
		},
		{"extensions", body("extensions", `{"app":"9.1"}`), report(func(r *epro.Report) { r.Extensions = []byte(`{"app":"9.1"}`) })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := []byte(tt.body)
			got, problems := epro.ParseReport(raw)
			if len(problems) != 0 {
				t.Fatalf("refused: %v", problems)
			}
			clear(raw) // nothing may alias the body
			if !got.Timestamp.Equal(tt.want.Timestamp) {
				t.Errorf("instant %v, want %v", got.Timestamp, tt.want.Timestamp)
			}
			_, offset := got.Timestamp.Zone()
			if _, want := tt.want.Timestamp.Zone(); offset != want {
				t.Errorf("offset %d s, want %d s", offset, want)
			}
			if d := difference(got, tt.want); d != "" {
				t.Error(d)
			}
		})
	}
}

// difference says in which content two reports differ besides their instants.
func difference(a, b epro.Report) string {
	switch {
	case a.PatientID != b.PatientID || a.TrialID != b.TrialID:
		return fmt.Sprintf("ids %q %q, want %q %q", a.PatientID, a.TrialID, b.PatientID, b.TrialID)
	case a.HasReportID != b.HasReportID || a.ReportID != b.ReportID:
		return fmt.Sprintf("report id %v, want %v", a.ReportID, b.ReportID)
	case a.Instrument != b.Instrument || a.InstrumentVersion != b.InstrumentVersion:
		return fmt.Sprintf("instrument %s %d, want %s %d", a.Instrument, a.InstrumentVersion, b.Instrument, b.InstrumentVersion)
	case a.HasScore != b.HasScore || a.QoLScore != b.QoLScore:
		return fmt.Sprintf("score %v %d, want %v %d", a.HasScore, a.QoLScore, b.HasScore, b.QoLScore)
	case a.HasComments != b.HasComments || a.Comments != b.Comments:
		return fmt.Sprintf("comments %v %q, want %v %q", a.HasComments, a.Comments, b.HasComments, b.Comments)
	case string(a.Answers) != string(b.Answers) || (a.Answers == nil) != (b.Answers == nil):
		return fmt.Sprintf("answers %q, want %q", a.Answers, b.Answers)
	case string(a.Extensions) != string(b.Extensions) || (a.Extensions == nil) != (b.Extensions == nil):
		return fmt.Sprintf("extensions %q, want %q", a.Extensions, b.Extensions)
	}
	return ""
}

func TestReportPrintsNothing(t *testing.T) {
	r, problems := epro.ParseReport([]byte(typicalBody))
	if problems != nil {
		t.Fatal(problems)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "report", r, "pointer", &r)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %d", r, &r, r, &r, r), log.String()} {
		if strings.Contains(text, "P-000001") || strings.Contains(text, "Slept") || !strings.Contains(text, "withheld") {
			t.Errorf("a report prints its content: %s", text)
		}
	}
}

func TestParseReportAllocations(t *testing.T) {
	for name, b := range map[string]string{"typical": typicalBody, "without comments": body(), "quarter-hour zone": body("timestamp", `"2026-03-01T08:30:00+05:45"`)} {
		raw := []byte(b)
		n := testing.AllocsPerRun(1000, func() {
			if _, problems := epro.ParseReport(raw); problems != nil {
				t.Fatal(problems)
			}
		})
		if n > 2 {
			t.Errorf("%s: %v allocations, want at most 2", name, n)
		}
	}
}

func BenchmarkParseReport(b *testing.B) {
	for _, bb := range []struct{ name, body string }{
		{"typical", typicalBody},
		{"minimal", body()},
		{"chinese", body("comments", `"今天感觉好多了，晚上有一点疼。"`)},
		{"answers", body("instrument", `"eq-5d@1"`, "answers", manyNames(20, false))},
		{"long", body("comments", `"`+strings.Repeat("word ", 800)+`"`)},
		{"refused", body("qolScore", "11", "mood", "1")},
	} {
		raw := []byte(bb.body)
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				epro.ParseReport(raw)
			}
		})
	}
}
