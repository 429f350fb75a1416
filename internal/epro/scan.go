package epro

import "bytes"

// MaxJSONDepth is how deep objects and arrays may nest in any JSON this system takes, the outermost one counted as 1. Thirty-two
// is far beyond any questionnaire and bounds the recursion of the scanner.
const MaxJSONDepth = 32

// scanner walks over one JSON text (RFC 8259) without allocating. It knows two sorts of trouble:
//
//   - a fault ends the scan: the text is not JSON, or nested too deep, so what follows cannot be understood;
//   - a flaw does not: the text is JSON, but a value has something no report or fact may carry (invalid UTF-8, a lone surrogate,
//     U+0000, a name twice in one object, a number too large to write down). The scan goes on, so that a caller can name every bad
//     field and not only the first.
//
// Methods that can meet a fault leave it in fault and return false; no method moves on after that.
type scanner struct {
	data    []byte
	pos     int
	fault   trouble
	faultAt int
	flaw    trouble // the first one since it was last cleared
	flawAt  int
	names   []span // member names of the objects being checked, innermost last
}

// span is the inside of a JSON string: the bytes between its quotes, still escaped if escaped is true.
type span struct {
	start, end int
	escaped    bool
}

func (s *scanner) fail(t trouble, at int) bool {
	if s.fault == troubleNone {
		s.fault, s.faultAt = t, at
	}
	return false
}

func (s *scanner) blemish(t trouble, at int) {
	if s.flaw == troubleNone {
		s.flaw, s.flawAt = t, at
	}
}

// peek returns the next byte, or 0 at the end. A zero byte in the text is never legal outside a string, so the two need no telling apart.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\n', '\r', '\t':
			s.pos++
		default:
			return
		}
	}
}

// begin moves to the first byte of the only value of the text.
func (s *scanner) begin() bool {
	if bytes.HasPrefix(s.data, []byte("\xef\xbb\xbf")) {
		return s.fail(troubleBOM, 0)
	}
	s.space()
	if s.pos == len(s.data) {
		return s.fail(troubleEmpty, s.pos)
	}
	return true
}

// finish checks that nothing but white space follows the value.
func (s *scanner) finish() bool {
	s.space()
	if s.pos < len(s.data) {
		return s.fail(troubleTrailing, s.pos)
	}
	return true
}

// expected fails at the current byte, or says that the text ends there.
func (s *scanner) expected(t trouble) bool {
	if s.pos >= len(s.data) {
		t = troubleEnd
	}
	return s.fail(t, s.pos)
}

// enter steps over the bracket that opens a container which will be at the given depth.
func (s *scanner) enter(depth int) bool {
	if depth > MaxJSONDepth {
		return s.fail(troubleDepth, s.pos)
	}
	s.pos++
	return true
}

// member moves to the next value of the object just entered (first) or left in the middle, and gives its name. It returns false
// behind the closing brace, and at a fault.
func (s *scanner) member(first bool) (span, bool) {
	s.space()
	if s.peek() == '}' {
		s.pos++
		return span{}, false
	}
	if !first {
		if s.peek() != ',' {
			return span{}, s.expected(troubleObjectComma)
		}
		s.pos++
		s.space()
	}
	if s.peek() != '"' {
		return span{}, s.expected(troubleName)
	}
	name, ok := s.str()
	if !ok {
		return span{}, false
	}
	s.space()
	if s.peek() != ':' {
		return span{}, s.expected(troubleColon)
	}
	s.pos++
	s.space()
	return name, true
}

// element moves to the next value of the array just entered (first) or left in the middle. It returns false behind the closing
// bracket, and at a fault.
func (s *scanner) element(first bool) bool {
	s.space()
	if s.peek() == ']' {
		s.pos++
		return false
	}
	if !first {
		if s.peek() != ',' {
			return s.expected(troubleArrayComma)
		}
		s.pos++
		s.space()
	}
	return true
}

// skip steps over one value that lies inside depth containers, checking it completely.
func (s *scanner) skip(depth int) bool {
	switch c := s.peek(); {
	case c == '"':
		_, ok := s.str()
		return ok
	case c == '{':
		return s.skipObject(depth + 1)
	case c == '[':
		if !s.enter(depth + 1) {
			return false
		}
		for first := true; s.element(first); first = false {
			if !s.skip(depth + 1) {
				return false
			}
		}
		return s.fault == troubleNone
	case c == '-' || isDigit(c):
		_, ok := s.number()
		return ok
	default:
		_, ok := s.literal()
		return ok
	}
}

func (s *scanner) skipObject(depth int) bool {
	at, base := s.pos, len(s.names)
	if s.names == nil {
		s.names = make([]span, 0, fewNames)
	}
	if !s.enter(depth) {
		return false
	}
	for first := true; ; first = false {
		name, ok := s.member(first)
		if !ok {
			break
		}
		s.names = append(s.names, name)
		if !s.skip(depth) {
			return false
		}
	}
	if s.fault != troubleNone {
		return false
	}
	if s.repeats(s.names[base:]) {
		s.blemish(troubleDuplicate, at)
	}
	s.names = s.names[:base]
	return true
}

// fewNames is up to how many names are compared each with each; above it a set is cheaper, and safe against a body made of names.
const fewNames = 16

func (s *scanner) repeats(names []span) bool {
	if len(names) > fewNames {
		seen := make(map[string]struct{}, len(names))
		for _, n := range names {
			seen[string(s.decoded(n))] = struct{}{}
		}
		return len(seen) < len(names)
	}
	for i, n := range names {
		for _, m := range names[:i] {
			if n.escaped || m.escaped {
				if bytes.Equal(s.decoded(n), s.decoded(m)) {
					return true
				}
			} else if bytes.Equal(s.data[n.start:n.end], s.data[m.start:m.end]) {
				return true
			}
		}
	}
	return false
}

// literal steps over true, false or null and returns its first letter.
func (s *scanner) literal() (byte, bool) {
	for _, word := range [...]string{"true", "false", "null"} {
		if end := s.pos + len(word); end <= len(s.data) && string(s.data[s.pos:end]) == word {
			s.pos = end
			return word[0], true
		}
	}
	return 0, s.expected(troubleValue)
}

// number steps over a number and returns its spelling.
func (s *scanner) number() ([]byte, bool) {
	start := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return nil, false
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return nil, false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return nil, false
		}
		if !numberInRange(s.data[start:s.pos]) {
			s.blemish(troubleNumberRange, start)
		}
	}
	return s.data[start:s.pos], true
}

func (s *scanner) digits() bool {
	start := s.pos
	for isDigit(s.peek()) {
		s.pos++
	}
	return s.pos > start || s.expected(troubleNumber)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
