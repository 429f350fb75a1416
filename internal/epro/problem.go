package epro

import "strconv"

// FieldProblem says what is wrong with one field of a report body, in words a developer of a phone app can act on. Neither part
// ever holds a value that was sent: a problem may be shown, logged and counted.
type FieldProblem struct {
	// Field is the name of the field, or "body" for what concerns no field alone. An unknown field is named as it was sent if its
	// name looks like a name (see [ParseReport]).
	Field string
	// Problem is a sentence whose subject is the field: "must be …", "is missing".
	Problem string
}

// JSONError says why [CanonicalJSON] or [CheckObject] refused a text. It holds nothing of the text.
type JSONError struct {
	Offset  int    // the byte, counted from 0, at which the trouble was met
	Problem string // a sentence whose subject is the text
}

// Error returns the problem with its place.
func (e *JSONError) Error() string {
	return "JSON " + e.Problem + " (at byte " + strconv.Itoa(e.Offset) + ")"
}

// trouble is what a scanner can have against a text.
type trouble uint8

const (
	troubleNone trouble = iota
	troubleEmpty
	troubleBOM
	troubleNotObject
	troubleTrailing
	troubleDepth
	troubleEnd
	troubleValue
	troubleName
	troubleColon
	troubleObjectComma
	troubleArrayComma
	troubleNumber
	troubleControl
	troubleEscape
	troubleUTF8
	troubleSurrogate
	troubleNUL
	troubleDuplicate
	troubleNumberRange
)

var troubleText = [...]string{
	troubleEmpty:       "is empty; send one JSON object",
	troubleBOM:         "starts with a byte order mark; send UTF-8 without one",
	troubleNotObject:   "must be one JSON object",
	troubleTrailing:    "has more bytes after its JSON value; send exactly one",
	troubleDepth:       "is nested deeper than 32 levels",
	troubleEnd:         "is not valid JSON: it ends too early",
	troubleValue:       "is not valid JSON: a value was expected",
	troubleName:        "is not valid JSON: a field name in double quotes was expected",
	troubleColon:       "is not valid JSON: a colon was expected after a field name",
	troubleObjectComma: "is not valid JSON: a comma or a closing brace was expected",
	troubleArrayComma:  "is not valid JSON: a comma or a closing bracket was expected",
	troubleNumber:      "is not valid JSON: a digit was expected in a number",
	troubleControl:     "is not valid JSON: a control character in a string must be escaped",
	troubleEscape:      "is not valid JSON: a string has an unknown escape sequence",
	troubleUTF8:        "has text that is not valid UTF-8",
	troubleSurrogate:   "has an escaped UTF-16 surrogate without its other half",
	troubleNUL:         "has the character U+0000, which cannot be stored",
	troubleDuplicate:   "has an object that uses one name twice",
	troubleNumberRange: "has a number whose exponent is beyond nine digits",
}

// structure turns a fault, which ends the scan, into the only problem of the body.
func (s *scanner) structure(field string) []FieldProblem {
	text := troubleText[s.fault]
	switch s.fault {
	case troubleEmpty, troubleBOM, troubleNotObject:
	default:
		text += " (at byte " + strconv.Itoa(s.faultAt) + ")"
	}
	return []FieldProblem{{Field: field, Problem: text}}
}

// err returns the first trouble as an error, for callers to whom a flaw is as bad as a fault.
func (s *scanner) err() error {
	switch {
	case s.fault != troubleNone:
		return &JSONError{Offset: s.faultAt, Problem: troubleText[s.fault]}
	case s.flaw != troubleNone:
		return &JSONError{Offset: s.flawAt, Problem: troubleText[s.flaw]}
	}
	return nil
}

// What can be wrong with the fields of a report.
const (
	problemMissing   = "is missing"
	problemTwice     = "appears more than once"
	problemNoScore   = "is missing; it may be left out only if instrument names another instrument than qol and answers is sent"
	problemID        = "must be 1 to 64 printable ASCII characters that do not start or end with a space"
	problemReportID  = "must be a UUID such as 018f4e6a-7c1b-7d3e-9a52-3f6b8c1d2e4f, made once per report on the phone, not the nil UUID"
	problemScore     = "must be a whole number from 0 to 10, written without quotes, sign, fraction or exponent"
	problemComments  = "must be at most 4,000 characters long"
	problemAnswers   = "must be at most 32,768 bytes long"
	problemExtension = "must be at most 4,096 bytes long"
	problemInstr     = "must be id@version such as qol@1: the id 1 to 32 of a-z, 0-9 and -, the version from 1 to 4294967295 without leading zeros"

	problemTimeForm     = "must be an RFC 3339 date-time with seconds and an offset, such as 2026-03-01T08:30:00+08:00"
	problemTimeOffset   = "has no offset from UTC; end it with Z or with an offset such as +08:00"
	problemTimeCase     = "must use a capital T between date and time, and a capital Z"
	problemTimeFraction = "must have 1 to 9 digits after the decimal point of the seconds, or no point"
	problemTimeDate     = "names a date that does not exist"
	problemTimeClock    = "names a time of day that does not exist; hours go from 00 to 23, minutes and seconds from 00 to 59"
	problemTimeLeap     = "names a leap second, which cannot be kept; send second 59"
	problemTimeZone     = "has an impossible offset from UTC; hours go from 00 to 23, minutes from 00 to 59"
	problemTimeYear     = "must lie in the years 0000 to 9999 of UTC"

	problemUnknown     = "is not a field of a report; put what this version does not know into extensions"
	problemUnknownHid  = "has an unknown field, not shown because its name is not made of 1 to 64 letters, digits and . _ -"
	problemUnknownMore = "has more unknown fields than are listed here"
)
