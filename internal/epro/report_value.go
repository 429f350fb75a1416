package epro

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// value reads the value of a field. It returns false at a fault; a bad value is noted and stepped over.
func (p *reportParser) value(f field) bool {
	switch f {
	case fieldQoLScore:
		return p.score()
	case fieldComments:
		return p.comments()
	case fieldAnswers:
		return p.object(f, &p.report.Answers, MaxAnswersBytes, problemAnswers)
	case fieldExtensions:
		return p.object(f, &p.report.Extensions, MaxExtensionBytes, problemExtension)
	default:
		return p.shortText(f)
	}
}

// wrongType notes that a value is of the wrong type and steps over it.
func (p *reportParser) wrongType(f field) bool {
	switch {
	case p.peek() != 'n':
		p.bad[f] = "must be " + fields[f].kind
	case fields[f].required:
		p.bad[f] = "must be " + fields[f].kind + ", not null"
	default:
		p.bad[f] = "must be " + fields[f].kind + ", not null; leave the field out instead"
	}
	return p.skip(1)
}

// shortText reads a string into the arena.
func (p *reportParser) shortText(f field) bool {
	if p.peek() != '"' {
		return p.wrongType(f)
	}
	t, ok := p.str()
	if !ok {
		return false
	}
	raw, limit := p.data[t.start:t.end], fields[f].limit
	if p.flaw != troubleNone {
		p.bad[f] = troubleText[p.flaw]
		return true
	}
	if t.escaped {
		// No escape sequence is longer than six bytes per byte it stands for.
		var buf [6 * maxShortText]byte
		if len(raw) > 6*limit {
			p.bad[f] = fields[f].tooLong
			return true
		}
		raw = appendUnescaped(buf[:0], raw)
	}
	if len(raw) > limit {
		p.bad[f] = fields[f].tooLong
		return true
	}
	if f == fieldTimestamp {
		p.report.Timestamp, p.bad[f] = parseTimestamp(raw)
		return true
	}
	p.short[f].from = p.used
	p.used += copy(p.arena[p.used:], raw)
	p.short[f].to = p.used
	return true
}

func (p *reportParser) score() bool {
	c := p.peek()
	if c == '"' {
		p.bad[fieldQoLScore] = problemScore
		return p.skip(1)
	}
	if c != '-' && !isDigit(c) {
		return p.wrongType(fieldQoLScore)
	}
	literal, ok := p.number()
	if !ok {
		return false
	}
	n := 0
	for _, c := range literal {
		if n = n*10 + int(c-'0'); !isDigit(c) || n > MaxScore {
			p.bad[fieldQoLScore] = problemScore
			return true
		}
	}
	p.report.HasScore, p.report.QoLScore = true, n
	return true
}

func (p *reportParser) comments() bool {
	if p.peek() != '"' {
		return p.wrongType(fieldComments)
	}
	t, ok := p.str()
	if !ok {
		return false
	}
	if p.flaw != troubleNone {
		p.bad[fieldComments] = troubleText[p.flaw]
		return true
	}
	raw := p.data[t.start:t.end]
	if t.escaped {
		var buf [512]byte // holds most comments, so that only the string is allocated
		raw = appendUnescaped(buf[:0], raw)
	}
	if len(raw) > MaxCommentRunes && utf8.RuneCount(raw) > MaxCommentRunes {
		p.bad[fieldComments] = problemComments
		return true
	}
	p.report.HasComments, p.report.Comments = true, string(raw)
	return true
}

func (p *reportParser) object(f field, into *[]byte, limit int, tooLong string) bool {
	if p.peek() != '{' {
		return p.wrongType(f)
	}
	start := p.pos
	if !p.skipObject(2) {
		return false
	}
	raw := p.data[start:p.pos]
	switch {
	case p.flaw != troubleNone:
		p.bad[f] = troubleText[p.flaw]
	case len(raw) > limit:
		p.bad[f] = tooLong
	default:
		*into = bytes.Clone(raw)
	}
	return true
}

// texts makes one string of the arena and checks the fields that are parts of it.
func (p *reportParser) texts() {
	arena := string(p.arena[:p.used])
	text := func(f field) (string, bool) {
		return arena[p.short[f].from:p.short[f].to], p.seen[f] && p.bad[f] == ""
	}
	r := &p.report
	if s, ok := text(fieldPatientID); ok {
		if ValidID(s) != nil {
			p.bad[fieldPatientID] = problemID
		}
		r.PatientID = s
	}
	if s, ok := text(fieldTrialID); ok {
		if ValidID(s) != nil {
			p.bad[fieldTrialID] = problemID
		}
		r.TrialID = s
	}
	if s, ok := text(fieldReportID); ok {
		id, err := ParseUUID(s)
		if err != nil || id == (UUID{}) {
			p.bad[fieldReportID] = problemReportID
		}
		r.ReportID, r.HasReportID = id, true
	}
	r.Instrument, r.InstrumentVersion = QoLInstrument, QoLVersion
	if s, ok := text(fieldInstrument); ok {
		if r.Instrument, r.InstrumentVersion, ok = parseInstrument(s); !ok {
			p.bad[fieldInstrument] = problemInstr
		}
	}
}

// parseInstrument reads id@version.
func parseInstrument(s string) (id string, version uint32, ok bool) {
	id, digits, found := strings.Cut(s, "@")
	if !found || id == "" || len(id) > maxInstrumentID || digits == "" || digits[0] == '0' {
		return "", 0, false
	}
	for _, c := range []byte(id) {
		if !isDigit(c) && (c < 'a' || c > 'z') && c != '-' {
			return "", 0, false
		}
	}
	var n uint64
	for _, c := range []byte(digits) {
		if n = n*10 + uint64(c-'0'); !isDigit(c) || n > 1<<32-1 {
			return "", 0, false
		}
	}
	return id, uint32(n), true
}
