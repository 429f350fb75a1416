package epro

import "unicode/utf8"

// plain marks the bytes that stand for themselves in a JSON string and are ASCII.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str steps over the string that starts at the current byte.
func (s *scanner) str() (span, bool) {
	data := s.data
	i := s.pos + 1
	t := span{start: i}
	high := false
	for i < len(data) {
		c := data[i]
		switch {
		case plain[c]:
			i++
		case c == '"':
			if high && !utf8.Valid(data[t.start:i]) {
				s.blemish(troubleUTF8, t.start)
			}
			t.end = i
			s.pos = i + 1
			return t, true
		case c == '\\':
			t.escaped = true
			n := s.escape(i)
			if n == 0 {
				return t, false
			}
			i += n
		case c < 0x20:
			return t, s.fail(troubleControl, i)
		default:
			high = true
			i++
		}
	}
	return t, s.fail(troubleEnd, len(data))
}

// escape checks the escape sequence at i and returns its length, 0 at a fault. A surrogate pair is one sequence of twelve bytes.
func (s *scanner) escape(i int) int {
	if i+1 >= len(s.data) {
		s.fail(troubleEnd, len(s.data))
		return 0
	}
	switch s.data[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		s.fail(troubleEscape, i)
		return 0
	}
	r, ok := hex4(s.data[i+2:])
	switch {
	case !ok:
		s.fail(troubleEscape, i)
		return 0
	case r == 0:
		s.blemish(troubleNUL, i)
	case r >= 0xd800 && r < 0xdc00:
		if lowSurrogate(s.data[i+6:]) != 0 {
			return 12
		}
		s.blemish(troubleSurrogate, i)
	case r >= 0xdc00 && r < 0xe000:
		s.blemish(troubleSurrogate, i)
	}
	return 6
}

// lowSurrogate returns the second half of a pair if b starts with the escape of one, else 0.
func lowSurrogate(b []byte) rune {
	if len(b) >= 6 && b[0] == '\\' && b[1] == 'u' {
		if r, ok := hex4(b[2:]); ok && r >= 0xdc00 && r < 0xe000 {
			return r
		}
	}
	return 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case isDigit(c):
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// decoded returns what a string says: a part of the text itself where nothing is escaped, else a new slice.
func (s *scanner) decoded(t span) []byte {
	if !t.escaped {
		return s.data[t.start:t.end]
	}
	return appendUnescaped(make([]byte, 0, t.end-t.start), s.data[t.start:t.end])
}

// appendUnescaped appends what the inside of a JSON string says, never more bytes than it takes itself. The string must have
// passed str; a lone surrogate, which str calls a flaw, becomes U+FFFD.
func appendUnescaped(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch c = raw[i+1]; c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(raw[i+2:])
			i += 6
			if r >= 0xd800 && r < 0xdc00 {
				if low := lowSurrogate(raw[i:]); low != 0 {
					r = (r-0xd800)<<10 | (low - 0xdc00) + 0x10000
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
		i += 2
	}
	return dst
}
