package epro_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
)

// jsonSeeds are JSON texts and near misses for the tests that compare with encoding/json.
var jsonSeeds = []string{
	"", " ", "{}", "[]", "0", "-0", "-", "01", "1.", "1.0", ".1", "1e", "1e5", "1E+05", "1e-5", "--1", "+1", "1x", "0x1", "1_0", "Infinity", "-Infinity", "NaN",
	"true", "tru", "truee", "True", "false", "null", "nul", `""`, `"`, `"\`, `"\"`, `"\u"`, `"\u12"`, `"\u123g"`, `"\uD83D\uDE00"`, `"\uD83D"`, `"\x"`, `"\'"`, "'a'",
	"\"\t\"", "\"\x7f\"", "\"\x00\"", "\"\xff\"", "\"é\"", "\x00", "{}\x00", "\v{}", "\u00a0{}", "{}\f",
	`{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{a:1}`, `{1:1}`, `{"a":1 "b":2}`, `{"a":1;"b":2}`, `{"a":1}}`, `{"a":1]`, `[1,]`, `[,]`, `[1 2]`, `[1}`, `[`, `{`, `]`, `}`,
	`{"a":{"b":[1,2,{"c":null}]}}`, `{"a":1}{"b":2}`, `{"a":1} // x`, "/**/{}", "\xef\xbb\xbf{}", `{"":""}`, ` { "a" : [ ] } `,
}

// The scanner takes exactly the JSON that encoding/json takes, as far as the rules beyond JSON are kept.
func TestSyntaxAgreesWithStandardDecoder(t *testing.T) {
	const kept = "UTF-8 surrogate U+0000 one name twice exponent" // what the rules beyond JSON say
	for _, text := range jsonSeeds {
		wrapped := `{"v":` + text + `}`
		err := epro.CheckObject([]byte(wrapped))
		beyond := false
		for _, word := range strings.SplitAfter(kept, " ") {
			beyond = beyond || err != nil && strings.Contains(err.Error(), strings.TrimSpace(word)) && !strings.Contains(err.Error(), "not valid JSON")
		}
		if valid := json.Valid([]byte(wrapped)); valid != (err == nil) && !(valid && beyond) {
			t.Errorf("%q: encoding/json %v, here %v", wrapped, valid, err)
		}
	}
}

func TestJSONErrorSaysWhere(t *testing.T) {
	for text, offset := range map[string]int{
		"": 0, "  [": 2, `{"a":1}x`: 7, `{"a":1,}`: 7, `{"a":"\q"}`: 6, `{"a":"\ud800"}`: 6, "{\"a\":\"b\n\"}": 7, `{"a":tru}`: 5, `{"a":"`: 6, `{"a":{"b":1,"b":2}}`: 5,
		"{\"a\":\"x\xff\"}": 6, `{"a":-x}`: 6,
	} {
		err := epro.CheckObject([]byte(text))
		var je *epro.JSONError
		if !errors.As(err, &je) || je.Offset != offset {
			t.Errorf("%q: %v, want byte %d", text, err, offset)
		}
	}
}
