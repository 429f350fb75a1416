package receipt_test

import (
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
)

type meaningVector struct {
	Name     string `json:"name"`
	Body     string `json:"body"` // hex of the bytes received
	ReportID string `json:"reportId"`
	Derived  bool   `json:"derived"`
	Meaning  string `json:"meaning"` // hex of the canonical meaning
	Key      string `json:"key"`
	Digest   string `json:"digest"`
}

// meaningVectors are reports with what they mean. Those called same-… are spellings of the one called report.
func meaningVectors(t testing.TB) []meaningVector {
	const ids = `"patientId":"P-000001","trialId":"T001","reportId":"7b0c1f6e-3a5d-4c1e-9d5b-0a4f6f2f9a11",`
	key := epro.MeaningKey(derive("meaning key"))
	var out []meaningVector
	for _, c := range [][2]string{
		{"report", `{` + ids + `"timestamp":"2026-03-01T08:30:00+08:00","qolScore":7,"comments":"caf\u00e9 \"1\"\n"}`},
		{"same-order", `{"comments":"caf\u00E9 \u00221\u0022\u000a","qolScore":7,"timestamp":"2026-03-01T08:30:00+08:00",` + ids[:len(ids)-1] + `}`},
		{"same-instant", `{` + ids + `"timestamp":"2026-03-01T00:30:00.000Z","qolScore":7,"instrument":"qol@1","comments":"café \"1\"\n"}`},
		{"other-blank-comments", `{` + ids + `"timestamp":"2026-03-01T08:30:00+08:00","qolScore":7,"comments":""}`},
		{"other-no-comments", `{` + ids + `"timestamp":"2026-03-01T08:30:00+08:00","qolScore":7}`},
		{"score-0", `{` + ids + `"timestamp":"2026-03-01T08:30:00+08:00","qolScore":0}`},
		{"derived", `{"patientId":"P-000002","trialId":"T001","timestamp":"2026-02-28T21:00:01.5-03:30","qolScore":10}`},
		{"derived-same", `{"trialId":"T001","patientId":"P-000002","timestamp":"2026-03-01T00:30:01.500Z","qolScore":10}`},
		{"answers", `{` + ids + `"timestamp":"2026-03-01T08:30:00Z","instrument":"eq5d@3","answers":{"b":[1.0,-0,1e21,1E+2,0.0000001,123456789012345678901234567890,12.50],"a":{"é":true,"z":null,"A":"\/\b\u001F\u007f"}},"extensions":{}}`},
	} {
		r, problems := epro.ParseReport([]byte(c[1]))
		if len(problems) > 0 {
			t.Fatalf("%s: %v", c[0], problems)
		}
		m := r.AppendMeaning(nil)
		out = append(out, meaningVector{
			Name: c[0], Body: hx([]byte(c[1])), ReportID: r.ID().String(), Derived: !r.HasReportID,
			Meaning: hx(m), Key: hx(key[:]), Digest: epro.ReportMeaning(key, m).String(),
		})
	}
	return out
}

func TestMeaningVectorsSayWhatIsTheSame(t *testing.T) {
	by := map[string]string{}
	for _, v := range readVectors[[]meaningVector](t, "meanings.json") {
		by[v.Name] = v.Digest
	}
	for _, same := range [][2]string{{"report", "same-order"}, {"report", "same-instant"}, {"derived", "derived-same"}} {
		if by[same[0]] != by[same[1]] {
			t.Errorf("%s and %s must mean the same", same[0], same[1])
		}
	}
	for _, other := range [][2]string{{"report", "other-blank-comments"}, {"other-no-comments", "other-blank-comments"}, {"score-0", "other-no-comments"}} {
		if by[other[0]] == by[other[1]] {
			t.Errorf("%s and %s must not mean the same", other[0], other[1])
		}
	}
}
