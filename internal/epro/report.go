package epro

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Limits of a report body.
const (
	MaxCommentRunes   = 4000     // characters (Unicode code points) of comments, as the original contract has it
	MaxAnswersBytes   = 32 << 10 // of the answers object as sent: half of the largest body
	MaxExtensionBytes = 4 << 10  // of the extensions object as sent
	MaxScore          = 10
)

// QoLInstrument and QoLVersion name the instrument of a report that names none.
const (
	QoLInstrument = "qol"
	QoLVersion    = 1
)

// Report is the decoded content of a report body. Nothing in it aliases the body it was decoded from, so that buffers may be reused at
// once. The two ids and the instrument share one small string; comments, answers and extensions each stand alone, so keeping an id does
// not keep a patient's words in memory.
//
// A Report prints and logs as one fixed word: its content is health data.
type Report struct {
	PatientID, TrialID string
	ReportID           UUID // the zero UUID if HasReportID is false; a caller may then set it to ID()
	HasReportID        bool
	Timestamp          time.Time // device clock, in a fixed zone with the offset as sent
	Instrument         string    // "qol" if none was sent
	InstrumentVersion  uint32    // 1 if none was sent
	HasScore           bool
	QoLScore           int // 0..10
	HasComments        bool
	Comments           string
	Answers            []byte // JSON object as sent, nil if absent
	Extensions         []byte // JSON object as sent, nil if absent
}

// Format writes a fixed word whatever the verb, so that no content can slip into a message.
func (Report) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("report(withheld)")) }

// LogValue returns a fixed word, as Format writes it.
func (Report) LogValue() slog.Value { return slog.StringValue("report(withheld)") }

type field uint8

const (
	fieldPatientID field = iota
	fieldTrialID
	fieldReportID
	fieldTimestamp
	fieldInstrument
	fieldQoLScore
	fieldComments
	fieldAnswers
	fieldExtensions
	fieldCount
)

// fields says of each field its name, what its value must be and the longest decoded text it may have (0: not kept as a short text).
var fields = [fieldCount]struct {
	name, kind string
	required   bool
	limit      int
	tooLong    string
}{
	fieldPatientID:  {"patientId", "a string", true, MaxIDLength, problemID},
	fieldTrialID:    {"trialId", "a string", true, MaxIDLength, problemID},
	fieldReportID:   {"reportId", "a string", false, uuidLength, problemReportID},
	fieldTimestamp:  {"timestamp", "a string", true, maxTimestampLen, problemTimeForm},
	fieldInstrument: {"instrument", "a string", false, maxInstrumentLength, problemInstr},
	fieldQoLScore:   {"qolScore", "a number", false, 0, ""},
	fieldComments:   {"comments", "a string", false, 0, ""},
	fieldAnswers:    {"answers", "an object", false, 0, ""},
	fieldExtensions: {"extensions", "an object", false, 0, ""},
}

func fieldNamed(name []byte) (field, bool) {
	switch string(name) {
	case "patientId":
		return fieldPatientID, true
	case "trialId":
		return fieldTrialID, true
	case "reportId":
		return fieldReportID, true
	case "timestamp":
		return fieldTimestamp, true
	case "instrument":
		return fieldInstrument, true
	case "qolScore":
		return fieldQoLScore, true
	case "comments":
		return fieldComments, true
	case "answers":
		return fieldAnswers, true
	case "extensions":
		return fieldExtensions, true
	}
	return 0, false
}

const (
	uuidLength          = 36
	maxInstrumentID     = 32
	maxInstrumentLength = maxInstrumentID + len("@4294967295")
	maxShortText        = 64 // the largest limit in fields
	maxUnknownListed    = 16 // more unknown fields than this are a broken app; listing them all would let a body of 64 KiB ask for a far larger answer
)

// ParseReport decodes the body of a report strictly. No problem means that the report is valid; otherwise the Report is empty and
// the problems name every bad field once, known ones in a fixed order, then unknown ones in order of appearance. What makes the body
// as a whole unreadable (not JSON, nested too deep, bytes behind the object) is one problem alone. No problem holds a value that was sent.
//
// Beyond RFC 8259: field names are exact (the case matters, an escaped name is the name it spells); a field may appear once; null is
// never a value. qolScore is an integer literal 0..10 (no sign, fraction or exponent: -0, 7.0 and 1e1 are refused); it is required
// unless instrument names another instrument than qol and answers is sent. Timestamps: see parseTimestamp. Comments may hold any
// character but U+0000, which PostgreSQL cannot store; the same goes for every text inside answers and extensions, which also
// must be what [CanonicalJSON] takes. An unknown field is named as sent only if its name is 1 to 64 of A-Z, a-z, 0-9 and . _ - :
// others, which may be text put in the wrong place, count for "body".
//
// It keeps no reference to body, allocates twice for a body with ids and comments, and may be called concurrently.
func ParseReport(body []byte) (Report, []FieldProblem) {
	p := reportParser{scanner: scanner{data: body}}
	if !p.begin() {
		return Report{}, p.structure("body")
	}
	if p.peek() != '{' {
		p.fail(troubleNotObject, p.pos)
		return Report{}, p.structure("body")
	}
	p.pos++
	for first := true; ; first = false {
		p.flaw = troubleNone
		name, ok := p.member(first)
		if !ok {
			break
		}
		f, known := p.field(name)
		if !known {
			ok = p.skip(1)
		} else {
			ok = p.value(f)
		}
		if !ok && p.fault == troubleDepth && known && (f == fieldAnswers || f == fieldExtensions) {
			return Report{}, p.structure(fields[f].name)
		}
		if !ok {
			break
		}
	}
	if p.fault != troubleNone || !p.finish() {
		return Report{}, p.structure("body")
	}
	p.texts()
	p.missing()
	if problems := p.problems(); problems != nil {
		return Report{}, problems
	}
	return p.report, nil
}

// reportParser gathers a report and what is wrong with it during one pass over the body.
type reportParser struct {
	scanner
	report     Report
	seen       [fieldCount]bool
	misspelled [fieldCount]bool   // a field was sent under a name that is nearly its own, so it is not missing besides
	bad        [fieldCount]string // the problem of each field, "" if none
	unknown    []FieldProblem
	hidden     bool // an unknown field whose name is not shown
	more       bool // more unknown fields than are listed

	// The short texts, decoded one behind the other until one string is made of all of them.
	arena [3*maxShortText + uuidLength]byte
	used  int
	short [fieldCount]struct{ from, to int }
}

// field finds the field of a name, noting what is wrong with the name. Not known, or not for the first time: the value is to be skipped.
func (p *reportParser) field(name span) (field, bool) {
	text := p.decoded(name)
	f, known := fieldNamed(text)
	if !known {
		p.unknownField(text)
		return 0, false
	}
	if p.seen[f] {
		p.bad[f] = problemTwice
		return 0, false
	}
	p.seen[f] = true
	return f, true
}

func (p *reportParser) unknownField(name []byte) {
	if !showable(name) {
		p.hidden = true
		return
	}
	for _, u := range p.unknown {
		if u.Field == string(name) {
			return
		}
	}
	problem := problemUnknown
	if f, ok := nearField(name); ok {
		p.misspelled[f] = true
		problem = "is not a field of a report; names are exact, write " + fields[f].name
	}
	if len(p.unknown) == maxUnknownListed {
		p.more = true
		return
	}
	p.unknown = append(p.unknown, FieldProblem{Field: string(name), Problem: problem})
}

func showable(name []byte) bool {
	for _, c := range name {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 64
}

// nearField finds the field whose name differs from the one sent only in case and in - and _, as it does after a change of naming style.
func nearField(sent []byte) (field, bool) {
	var buf [64]byte // as long as a showable name
	bare := buf[:0]
	for _, c := range sent {
		if c != '-' && c != '_' {
			bare = append(bare, c)
		}
	}
	for f := range fields {
		if strings.EqualFold(string(bare), fields[f].name) {
			return field(f), true
		}
	}
	return 0, false
}

// missing notes the required fields that were not sent.
func (p *reportParser) missing() {
	for f := range fields {
		if fields[f].required && !p.seen[f] && !p.misspelled[f] {
			p.bad[f] = problemMissing
		}
	}
	if p.seen[fieldQoLScore] || p.misspelled[fieldQoLScore] {
		return
	}
	// A bad or misspelled instrument may have been meant as another one: what is known to be wrong is said, the score is not guessed at.
	another := p.report.Instrument != QoLInstrument || p.bad[fieldInstrument] != "" || p.misspelled[fieldInstrument]
	if !another || !p.seen[fieldAnswers] && !p.misspelled[fieldAnswers] {
		p.bad[fieldQoLScore] = problemNoScore
	}
}

func (p *reportParser) problems() []FieldProblem {
	var list []FieldProblem
	for f, problem := range p.bad {
		if problem != "" {
			list = append(list, FieldProblem{Field: fields[f].name, Problem: problem})
		}
	}
	list = append(list, p.unknown...)
	if p.hidden {
		list = append(list, FieldProblem{Field: "body", Problem: problemUnknownHid})
	}
	if p.more {
		list = append(list, FieldProblem{Field: "body", Problem: problemUnknownMore})
	}
	return list
}
