package gateway

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/tidegate/tidegate/internal/epro"
)

// accepted says what became of what a request wanted to record.
type accepted uint8

const (
	acceptedNothing accepted = iota // the request records nothing: not said
	acceptedFalse                   // surely not recorded
	acceptedUnknown                 // may be recorded: repeat the same
)

// problem is an answer other than success, in the form of RFC 9457. Its texts
// are this program's own words: they never hold a value that was sent.
type problem struct {
	status     int
	code       string // stable, for programs: the last part of the type URN
	detail     string // a sentence, for people
	fields     []epro.FieldProblem
	accepted   accepted
	retryAfter time.Duration // 0: not said
	closing    bool          // the connection ends with this answer
	commandID  epro.UUID     // of a command that was rejected or whose outcome is unknown
	version    uint64        // of the entity a rejected command spoke of, 0 if not known
	cause      error         // for the log, nil when the detail says it all
}

// Error implements error.
func (p *problem) Error() string { return p.code + ": " + p.detail }

// Unwrap returns the cause.
func (p *problem) Unwrap() error { return p.cause }

// with returns a copy that says what became of the request's content.
func (p *problem) with(a accepted) *problem {
	q := *p
	q.accepted = a
	return &q
}

const problemType = "application/problem+json"

// Header values that are set as they are, so that setting them allocates nothing.
var (
	headerProblem   = []string{problemType}
	headerJSON      = []string{"application/json"}
	headerNoStore   = []string{"no-store"}
	headerNoSniff   = []string{"nosniff"}
	headerClose     = []string{"close"}
	headerChallenge = []string{`Bearer realm="tidegate"`}
	headerBadToken  = []string{`Bearer realm="tidegate", error="invalid_token"`}
	headerBadScope  = []string{`Bearer realm="tidegate", error="insufficient_scope"`}
)

// write sends the problem. Nothing may have been written before.
func (p *problem) write(c *gin.Context) {
	h := c.Writer.Header()
	h["Content-Type"] = headerProblem
	if p.status == http.StatusUnauthorized {
		if p.code == codeNoToken {
			h["Www-Authenticate"] = headerChallenge
		} else {
			h["Www-Authenticate"] = headerBadToken
		}
	}
	if p.code == codeScope {
		h["Www-Authenticate"] = headerBadScope
	}
	if p.retryAfter > 0 {
		h["Retry-After"] = []string{strconv.FormatInt(wholeSeconds(p.retryAfter), 10)}
	}
	if p.closing {
		h["Connection"] = headerClose
	}
	buf := getBuffer()
	buf.b = p.appendJSON(buf.b)
	c.Writer.WriteHeader(p.status)
	_, _ = c.Writer.Write(buf.b) // an error means that the client went away
	putBuffer(buf)
	c.Abort()
}

// appendJSON appends the body, which is small: at most some dozens of fields.
func (p *problem) appendJSON(b []byte) []byte {
	b = append(b, `{"type":"urn:tidegate:problem:`...)
	b = append(b, p.code...)
	b = append(b, `","title":`...)
	b = appendString(b, http.StatusText(p.status))
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(p.status), 10)
	b = append(b, `,"detail":`...)
	b = appendString(b, p.detail)
	b = append(b, `,"error":`...)
	b = appendString(b, p.detail)
	if p.fields != nil {
		b = append(b, `,"fields":`...)
		b = appendFields(b, p.fields)
	}
	b = p.appendAccepted(b)
	if p.retryAfter > 0 {
		b = append(b, `,"retryAfter":`...)
		b = strconv.AppendInt(b, wholeSeconds(p.retryAfter), 10)
	}
	if p.commandID != (epro.UUID{}) {
		b = append(b, `,"commandId":"`...)
		b, _ = p.commandID.AppendText(b)
		b = append(b, '"')
	}
	if p.version != 0 {
		b = append(b, `,"version":`...)
		b = strconv.AppendUint(b, p.version, 10)
	}
	return append(b, '}', '\n')
}

func (p *problem) appendAccepted(b []byte) []byte {
	switch p.accepted {
	case acceptedFalse:
		return append(b, `,"accepted":false`...)
	case acceptedUnknown:
		return append(b, `,"accepted":"unknown"`...)
	case acceptedNothing:
	}
	return b
}

func appendFields(b []byte, fields []epro.FieldProblem) []byte {
	b = append(b, '[')
	for i := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"field":`...)
		b = appendString(b, fields[i].Field)
		b = append(b, `,"problem":`...)
		b = appendString(b, fields[i].Problem)
		b = append(b, '}')
	}
	return append(b, ']')
}

// wholeSeconds rounds up: a client that comes back early is refused again.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// spread is a time to wait, uniform in [base, 3 base], so that those who were
// refused together do not come back together.
func spread(base time.Duration) time.Duration {
	return base + time.Duration(rand.Int64N(int64(2*base)+1)) //nolint:gosec // jitter needs no secrecy
}

// appendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD;
// the characters that HTML and scripts give a meaning to are escaped, so that
// an answer is harmless wherever it is shown.
func appendString(b []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if (r == utf8.RuneError && n == 1) || r == '\u2028' || r == '\u2029' {
			b = append(b, s[from:i]...)
			if r == utf8.RuneError {
				b = append(b, `\ufffd`...)
			} else {
				b = append(b, `\u202`...)
				b = append(b, hexDigits[r&15])
			}
			from = i + n
		}
		i += n
	}
	return append(append(b, s[from:]...), '"')
}
