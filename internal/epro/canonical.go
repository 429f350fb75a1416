package epro

import (
	"bytes"
	"slices"
	"strconv"
)

// CheckObject checks that body is exactly one JSON object that [CanonicalJSON] can take: RFC 8259 syntax, valid UTF-8 without lone
// surrogates and without U+0000, no name twice in one object at any depth, at most [MaxJSONDepth] levels, numbers in range, nothing
// but white space around it. The error is a [*JSONError] and holds nothing of the body.
func CheckObject(body []byte) error {
	s := scanner{data: body}
	if !s.begin() {
		return s.err()
	}
	if s.peek() != '{' {
		s.fail(troubleNotObject, s.pos)
		return s.err()
	}
	if s.skipObject(1) {
		s.finish()
	}
	return s.err()
}

// CanonicalJSON appends the canonical form of one JSON value to dst. Two values have the same form exactly if they say the same:
//
//   - no white space;
//   - members of an object in ascending order of their decoded names, compared byte by byte as UTF-8 (RFC 8785 compares UTF-16 units:
//     the only difference to it besides numbers); a name twice in one object is refused;
//   - strings decoded, then written in UTF-8 with these escapes only: \" \\ \b \t \n \f \r, and \u00xx (lower-case hexadecimal) for
//     the other characters below U+0020. Unicode normalization is not applied. Invalid UTF-8, lone surrogates and U+0000 are refused;
//   - numbers as exact decimals, never by way of a float: let d be the significant digits without leading and trailing zeros, k how
//     many they are, and the value ±0.d × 10^n. Zero, of either sign, is 0. Else, as ECMAScript lays numbers out: k ≤ n ≤ 21: d and
//     n-k zeros; 0 < n < k, n ≤ 21: d with a point after n digits; -6 < n ≤ 0: "0.", -n zeros, d; otherwise the first digit, a point
//     and the other digits if there are any, "e", the sign "+" or "-", |n-1|. A number with |n-1| > 999,999,999 is refused;
//   - at most [MaxJSONDepth] levels, nothing but white space around the value.
//
// The form of a form is itself. The error is a [*JSONError] that holds nothing of the value; dst is then returned as it was.
func CanonicalJSON(dst, value []byte) ([]byte, error) {
	s := scanner{data: value}
	if !s.begin() {
		return dst, s.err()
	}
	out, ok := s.canonical(dst, 0)
	if ok {
		s.finish()
	}
	if err := s.err(); err != nil {
		return dst, err
	}
	return out, nil
}

// canonical appends the form of the value at the current byte, which lies inside depth containers.
func (s *scanner) canonical(dst []byte, depth int) ([]byte, bool) {
	switch c := s.peek(); {
	case c == '"':
		t, ok := s.str()
		if !ok {
			return dst, false
		}
		return appendString(dst, s.decoded(t)), true
	case c == '{':
		return s.canonicalObject(dst, depth+1)
	case c == '[':
		if !s.enter(depth + 1) {
			return dst, false
		}
		dst = append(dst, '[')
		for first := true; s.element(first); first = false {
			if !first {
				dst = append(dst, ',')
			}
			var ok bool
			if dst, ok = s.canonical(dst, depth+1); !ok {
				return dst, false
			}
		}
		return append(dst, ']'), s.fault == troubleNone
	case c == '-' || isDigit(c):
		literal, ok := s.number()
		if !ok {
			return dst, false
		}
		return appendNumber(dst, literal), true
	default:
		start := s.pos
		_, ok := s.literal()
		return append(dst, s.data[start:s.pos]...), ok
	}
}

// canonicalMember is one member already written: its decoded name, and where `"name":value` lies, counted from the object's brace.
type canonicalMember struct {
	name     []byte
	from, to int
}

func (s *scanner) canonicalObject(dst []byte, depth int) ([]byte, bool) {
	at := s.pos
	if !s.enter(depth) {
		return dst, false
	}
	open := len(dst)
	dst = append(dst, '{')
	var members []canonicalMember
	for first := true; ; first = false {
		t, ok := s.member(first)
		if !ok {
			break
		}
		if !first {
			dst = append(dst, ',')
		}
		m := canonicalMember{name: s.decoded(t), from: len(dst) - open}
		dst = append(appendString(dst, m.name), ':')
		if dst, ok = s.canonical(dst, depth); !ok {
			return dst, false
		}
		m.to = len(dst) - open
		members = append(members, m)
	}
	if s.fault != troubleNone {
		return dst, false
	}
	byName := func(a, b canonicalMember) int { return bytes.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(members, byName) {
		slices.SortFunc(members, byName)
		written := bytes.Clone(dst[open:])
		dst = dst[:open+1]
		for i, m := range members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, written[m.from:m.to]...)
		}
	}
	for i := 1; i < len(members); i++ {
		if bytes.Equal(members[i-1].name, members[i].name) {
			s.blemish(troubleDuplicate, at)
			break
		}
	}
	return append(dst, '}'), true
}

func appendString(dst, text []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i, c := range text {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, text[from:]...)
	return append(dst, '"')
}

// maxExponent bounds |n-1| of a number, see [CanonicalJSON]. Without a bound an exponent of any length would have to be computed with.
const maxExponent = 999_999_999

// decimal is a number taken apart: its significant digits are those of whole ‖ part without zeros at either end, and the value is
// ±0.digits × 10^n.
type decimal struct {
	negative    bool
	whole, part []byte // trimmed
	n           int64
}

// zero reports whether no significant digit is left.
func (d decimal) zero() bool { return len(d.whole)+len(d.part) == 0 }

// parseDecimal takes a JSON number apart. An exponent too long to compute with is cut to one that is out of range anyway.
func parseDecimal(literal []byte) decimal {
	var d decimal
	if literal[0] == '-' {
		d.negative = true
		literal = literal[1:]
	}
	mantissa := literal
	if e := bytes.IndexAny(literal, "eE"); e >= 0 {
		mantissa = literal[:e]
		exponent := literal[e+1:]
		minus := exponent[0] == '-'
		if minus || exponent[0] == '+' {
			exponent = exponent[1:]
		}
		const beyond = int64(1) << 60 // no text is long enough to bring a number with this exponent back into range
		for _, c := range exponent {
			d.n = min(d.n, beyond/16)*10 + int64(c-'0')
		}
		if minus {
			d.n = -d.n
		}
	}
	d.whole = mantissa
	if point := bytes.IndexByte(mantissa, '.'); point >= 0 {
		d.whole, d.part = mantissa[:point], mantissa[point+1:]
	}
	d.whole = trimLeft(d.whole)
	d.n += int64(len(d.whole))
	if len(d.whole) == 0 {
		zeros := len(d.part)
		d.part = trimLeft(d.part)
		d.n -= int64(zeros - len(d.part))
	}
	d.part = trimRight(d.part)
	if len(d.part) == 0 {
		d.whole = trimRight(d.whole)
	}
	return d
}

func trimLeft(digits []byte) []byte {
	for len(digits) > 0 && digits[0] == '0' {
		digits = digits[1:]
	}
	return digits
}

func trimRight(digits []byte) []byte {
	for len(digits) > 0 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	return digits
}

// numberInRange reports whether a JSON number has a canonical form.
func numberInRange(literal []byte) bool {
	d := parseDecimal(literal)
	return d.zero() || d.n-1 <= maxExponent && d.n-1 >= -maxExponent
}

// appendNumber appends the canonical form of a JSON number, see [CanonicalJSON].
func appendNumber(dst, literal []byte) []byte {
	d := parseDecimal(literal)
	if d.zero() {
		return append(dst, '0')
	}
	if d.negative {
		dst = append(dst, '-')
	}
	k := int64(len(d.whole) + len(d.part))
	start := int64(len(dst))
	switch {
	case k <= d.n && d.n <= 21:
		dst = append(append(dst, d.whole...), d.part...)
		for range d.n - k {
			dst = append(dst, '0')
		}
	case 0 < d.n && d.n <= 21:
		dst = append(append(dst, d.whole...), d.part...)
		dst = slices.Insert(dst, int(start+d.n), '.')
	case -6 < d.n && d.n <= 0:
		dst = append(dst, '0', '.')
		for range -d.n {
			dst = append(dst, '0')
		}
		dst = append(append(dst, d.whole...), d.part...)
	default:
		dst = append(append(dst, d.whole...), d.part...)
		if k > 1 {
			dst = slices.Insert(dst, int(start+1), '.')
		}
		dst = append(dst, 'e')
		if d.n > 0 {
			dst = append(dst, '+')
		}
		dst = strconv.AppendInt(dst, d.n-1, 10)
	}
	return dst
}
