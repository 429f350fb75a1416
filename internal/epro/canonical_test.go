package epro_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/internal/epro"
)

func TestCanonicalJSON(t *testing.T) {
	tests := []struct{ value, want string }{
		{" null ", "null"},
		{"true", "true"},
		{"\nfalse", "false"},
		{`{ "b" : [ 1 , { } , [ ] ] , "a" : "x" }`, `{"a":"x","b":[1,{},[]]}`},
		{`{"a":{"z":1,"y":2},"A":0,"":3,"aa":4}`, `{"":3,"A":0,"a":{"y":2,"z":1},"aa":4}`},
		{`{"\u0062":1,"a\u0000":2}`, ""},
		{`{"\u0062":1,"\u0061":2}`, `{"a":2,"b":1}`},
		{`{"\r":1,"\n":2," ":3,"\"":4}`, `{"\n":2,"\r":1," ":3,"\"":4}`}, // by what they say, not by how they are escaped
		{`{"😀":1,"\uffff":2}`, "{\"\uffff\":2,\"😀\":1}"},                 // bytewise: RFC 8785 has the other order
		{`"\u0041\/\u00e9\ud83d\uDE00\u007f"`, `"A/é😀` + "\x7f\""},
		{`"\b\t\n\f\r\u0008\u001F\u000b\"\\\u0022"`, `"\b\t\n\f\r\b\u001f\u000b\"\\\""`},

		{"0", "0"},
		{"-0", "0"},
		{"0.000", "0"},
		{"-0e5", "0"},
		{"0e99999999999999999999", "0"},
		{"1", "1"},
		{"1.0", "1"},
		{"1e0", "1"},
		{"10e-1", "1"},
		{"0.1E+1", "1"},
		{"-1.50", "-1.5"},
		{"100", "100"},
		{"1e2", "100"},
		{"4294967295", "4294967295"},
		{"9007199254740993", "9007199254740993"},
		{"1e20", "100000000000000000000"},
		{"1e21", "1e+21"},
		{"123e19", "1.23e+21"},
		{"100000000000000000000000", "1e+23"},
		{"123456789012345678901", "123456789012345678901"},
		{"1234567890123456789012", "1.234567890123456789012e+21"},
		{"123456789012345678901.5", "123456789012345678901.5"},
		{"0.000001", "0.000001"},
		{"1e-7", "1e-7"},
		{"12e-8", "1.2e-7"},
		{"0.00000120", "0.0000012"},
		{"7.50", "7.5"},
		{"00", ""},
		{"0.10000000000000000000000000001", "0.10000000000000000000000000001"},
		{"1e999999999", "1e+999999999"},
		{"10e999999999", ""},
		{"1e-999999999", "1e-999999999"},
		{"0.1e-999999999", ""},
		{"1000e-1000000002", "1e-999999999"},
		{"0.001e1000000002", "1e+999999999"},
		{"1e99999999999999999999999", ""},
		{"1e-99999999999999999999999", ""},

		{"", ""},
		{" ", ""},
		{"{}x", ""},
		{"{} {}", ""},
		{"\xef\xbb\xbf1", ""},
		{`{"a":1,"a":1}`, ""},
		{`{"a":1,"b":2,"\u0061":1}`, ""},
		{`[{"x":{"a":1,"a":2}}]`, ""},
		{`"\ud800"`, ""},
		{"\"\xff\"", ""},
		{`"\u0000"`, ""},
		{"[1,]", ""},
		{"[1 2]", ""},
		{"[,1]", ""},
		{"[", ""},
		{`{"a"`, ""},
		{"1.", ""},
		{".5", ""},
		{"-", ""},
		{"1e", ""},
		{"1e+", ""},
		{"tru", ""},
		{"truee", ""},
		{"\"a\x1f\"", ""},
		{strings.Repeat("[", 32) + strings.Repeat("]", 32), strings.Repeat("[", 32) + strings.Repeat("]", 32)},
		{strings.Repeat("[", 33) + strings.Repeat("]", 33), ""},
		{nested(32), nested(32)},
		{nested(33), ""},
		{strings.Repeat(`{"a":[`, 100_000), ""},
	}
	for _, tt := range tests {
		got, err := epro.CanonicalJSON([]byte("kept"), []byte(tt.value))
		if tt.want == "" {
			var je *epro.JSONError
			if !errors.As(err, &je) || je.Problem == "" || je.Offset < 0 || je.Offset > len(tt.value) {
				t.Errorf("%.40q: error %v", tt.value, err)
			}
		} else if err != nil {
			t.Errorf("%.40q: %v", tt.value, err)
		}
		if string(got) != "kept"+tt.want {
			t.Errorf("%.40q: %.60q, want %.60q", tt.value, got, "kept"+tt.want)
		}
	}
}

func TestCheckObject(t *testing.T) {
	for _, ok := range []string{`{}`, " {\"a\":[{\"b\":1},{\"b\":1}]}\n", nested(32), manyNames(100, false)} {
		if err := epro.CheckObject([]byte(ok)); err != nil {
			t.Errorf("%.40q: %v", ok, err)
		}
	}
	for bad, says := range map[string]string{
		"": "is empty", "[]": "must be one JSON object", "1": "must be one JSON object", "null": "must be one JSON object", `{}{}`: "more bytes",
		"\xef\xbb\xbf{}": "byte order mark", nested(33): "32 levels", `{"a":{"b":1,"b":1}}`: "one name twice", manyNames(100, true): "one name twice",
		"{\"a\":\"\xff\"}": "UTF-8", `{"a":"\udc00"}`: "surrogate", `{"a":"\u0000"}`: "U+0000", `{"a":1e1234567890}`: "exponent", `{"a":01}`: "comma",
	} {
		if err := epro.CheckObject([]byte(bad)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, want an error that says %q", bad, err, says)
		}
	}
}

// value is a JSON value that can be written in many ways.
type value any

type number struct { // ±digits × 10^exponent
	negative bool
	digits   uint64
	exponent int
}

type object map[string]value

func drawValue(depth int) *rapid.Generator[value] {
	return rapid.Custom(func(t *rapid.T) value {
		kind := rapid.IntRange(0, 6)
		if depth == 0 {
			kind = rapid.IntRange(0, 4)
		}
		switch kind.Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2, 3:
			return number{rapid.Bool().Draw(t, "sign"), rapid.Uint64().Draw(t, "digits"), rapid.IntRange(-40, 40).Draw(t, "exponent")}
		case 4:
			return drawText().Draw(t, "text")
		case 5:
			return rapid.SliceOfN(drawValue(depth-1), 0, 5).Draw(t, "array")
		}
		return object(rapid.MapOfN(drawText(), drawValue(depth-1), 0, 6).Draw(t, "object"))
	})
}

func drawText() *rapid.Generator[string] {
	return rapid.Map(rapid.StringOfN(rapid.Rune(), 0, 8, -1), func(s string) string {
		return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "0")
	})
}

// write spells a value in one of its many ways.
func write(t *rapid.T, b *strings.Builder, v value) {
	space := func() { b.WriteString(rapid.SampledFrom([]string{"", "", " ", "\n\t", "\r "}).Draw(t, "space")) }
	space()
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		fmt.Fprint(b, v)
	case number:
		writeNumber(t, b, v)
	case string:
		writeText(t, b, v)
	case []value:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			write(t, b, e)
		}
		b.WriteByte(']')
	case object:
		names := make([]string, 0, len(v))
		for n := range v { // in Go's random order, which is the point
			names = append(names, n)
		}
		b.WriteByte('{')
		for i, n := range names {
			if i > 0 {
				b.WriteByte(',')
			}
			space()
			writeText(t, b, n)
			space()
			b.WriteByte(':')
			write(t, b, v[n])
		}
		b.WriteByte('}')
	default:
		panic(fmt.Sprintf("%T", v))
	}
	space()
}

func writeText(t *rapid.T, b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		escape := rapid.IntRange(0, 3).Draw(t, "escape") == 0 || r < 0x20 || r == '"' || r == '\\'
		switch {
		case !escape:
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(b, `\u%04x\u%04X`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		case r == '/' || r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n' && rapid.Bool().Draw(t, "short"):
			b.WriteString(`\n`)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
}

func writeNumber(t *rapid.T, b *strings.Builder, n number) {
	digits := strconv.FormatUint(n.digits, 10) + strings.Repeat("0", rapid.IntRange(0, 30).Draw(t, "zeros"))
	exponent := n.exponent - (len(digits) - len(strconv.FormatUint(n.digits, 10)))
	if n.negative {
		b.WriteByte('-')
	}
	// Put the point anywhere, also before the first digit.
	point := rapid.IntRange(-5, len(digits)).Draw(t, "point")
	exponent += len(digits) - point
	if point <= 0 {
		digits = strings.Repeat("0", 1-point) + digits
		point = 1
	}
	if n.digits == 0 { // a leading zero may only be alone
		digits, point = "0"+digits[1:], 1
	}
	b.WriteString(digits[:point])
	if point < len(digits) {
		b.WriteString("." + digits[point:])
	}
	if exponent != 0 || rapid.Bool().Draw(t, "e0") {
		fmt.Fprintf(b, rapid.SampledFrom([]string{"e%d", "E%+d", "e%+04d"}).Draw(t, "form"), exponent)
	}
}

// Every spelling of a value has the same form, the form says what the value says, and it is its own form.
func TestCanonicalJSONProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawValue(3).Draw(t, "value")
		var one, other strings.Builder
		write(t, &one, v)
		write(t, &other, v)
		first, err := epro.CanonicalJSON(nil, []byte(one.String()))
		if err != nil {
			t.Fatalf("%q: %v", one.String(), err)
		}
		second, err := epro.CanonicalJSON(nil, []byte(other.String()))
		if err != nil {
			t.Fatalf("%q: %v", other.String(), err)
		}
		if !bytes.Equal(first, second) {
			t.Fatalf("two spellings, two forms:\n%q\n%q", first, second)
		}
		checkForm(t, []byte(one.String()), first)
	})
}

// Numbers have one form exactly if they are equal.
func TestCanonicalNumbersProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (string, *big.Rat, string) {
			n := number{rapid.Bool().Draw(t, label), rapid.Uint64Range(0, 200).Draw(t, label), rapid.IntRange(-25, 25).Draw(t, label)}
			var b strings.Builder
			writeNumber(t, &b, n)
			form, err := epro.CanonicalJSON(nil, []byte(b.String()))
			if err != nil {
				t.Fatalf("%q: %v", b.String(), err)
			}
			r, ok := new(big.Rat).SetString(b.String())
			if !ok {
				t.Fatalf("%q is no number", b.String())
			}
			return b.String(), r, string(form)
		}
		a, ra, fa := draw("a")
		b, rb, fb := draw("b")
		if (ra.Cmp(rb) == 0) != (fa == fb) {
			t.Fatalf("%s and %s have the forms %s and %s", a, b, fa, fb)
		}
	})
}

type failer interface{ Fatalf(string, ...any) }

// checkForm checks with another decoder that a form is valid, says the same as its value, and is its own form.
func checkForm(t failer, value, form []byte) {
	again, err := epro.CanonicalJSON(nil, form)
	if err != nil || !bytes.Equal(again, form) {
		t.Fatalf("the form of %q is %q (%v)", form, again, err)
	}
	a, b := decode(t, value), decode(t, form)
	if !sameJSON(a, b) {
		t.Fatalf("the form of %q says something else: %q", value, form)
	}
}

func decode(t failer, text []byte) any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil || d.More() {
		t.Fatalf("encoding/json refuses %q: %v", text, err)
	}
	return v
}

func sameJSON(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		n, ok := b.(json.Number)
		return ok && sameNumber(string(a), string(n))
	case []any:
		s, ok := b.([]any)
		if !ok || len(a) != len(s) {
			return false
		}
		for i := range a {
			if !sameJSON(a[i], s[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		m, ok := b.(map[string]any)
		if !ok || len(a) != len(m) {
			return false
		}
		for k := range a {
			if v, ok := m[k]; !ok || !sameJSON(a[k], v) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

// sameNumber compares exactly, except that numbers too long to be held as a fraction are taken as equal.
func sameNumber(a, b string) bool {
	if huge(a) || huge(b) {
		return true
	}
	x, ok1 := new(big.Rat).SetString(a)
	y, ok2 := new(big.Rat).SetString(b)
	return ok1 && ok2 && x.Cmp(y) == 0
}

func huge(n string) bool {
	e := strings.IndexAny(n, "eE")
	if e < 0 {
		return false
	}
	exponent, err := strconv.Atoi(n[e+1:])
	return err != nil || exponent > 5000 || exponent < -5000
}

func BenchmarkCanonicalJSON(b *testing.B) {
	value := []byte(manyNames(20, false))
	var dst []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		dst, _ = epro.CanonicalJSON(dst[:0], value)
	}
}
