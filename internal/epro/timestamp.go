package epro

import (
	"sync/atomic"
	"time"
)

// maxTimestampLen is the length of the longest timestamp: nine digits of a second and an offset.
const maxTimestampLen = len("2006-01-02T15:04:05.999999999+00:00")

// parseTimestamp reads an RFC 3339 date-time and returns it in a fixed zone with the offset it was written with (Z: [time.UTC]).
// Stricter than the RFC where the RFC leaves a choice: capital T and Z only (section 5.6 lets an application ask for them, and two
// spellings of one letter help nobody), no leap second, 1 to 9 digits of a fraction. The offset -00:00 counts as +00:00.
// The instant must be one that can be written in UTC with a four-digit year, or no screen could show it. The second result is a
// problem, "" if there is none.
//
// Not [time.Parse]: that one takes a comma before the fraction and drops digits after the ninth without a word.
func parseTimestamp(b []byte) (time.Time, string) {
	if len(b) < len("2006-01-02T15:04:05") || b[4] != '-' || b[7] != '-' || b[13] != ':' || b[16] != ':' {
		return time.Time{}, problemTimeForm
	}
	year, ok1 := digits2(b[0:])
	rest, ok2 := digits2(b[2:])
	year = year*100 + rest
	month, ok3 := digits2(b[5:])
	day, ok4 := digits2(b[8:])
	hour, ok5 := digits2(b[11:])
	minute, ok6 := digits2(b[14:])
	second, ok7 := digits2(b[17:])
	switch {
	case !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || !ok7:
		return time.Time{}, problemTimeForm
	case b[10] == 't':
		return time.Time{}, problemTimeCase
	case b[10] != 'T':
		return time.Time{}, problemTimeForm
	case month < 1 || month > 12 || day < 1 || day > daysIn(year, month):
		return time.Time{}, problemTimeDate
	case hour <= 23 && minute <= 59 && second == 60:
		return time.Time{}, problemTimeLeap
	case hour > 23 || minute > 59 || second > 59:
		return time.Time{}, problemTimeClock
	}
	b = b[19:]
	nanos, n, ok := parseFraction(b)
	if !ok {
		return time.Time{}, problemTimeFraction
	}
	minutes, zone, problem := parseOffset(b[n:])
	if problem != "" {
		return time.Time{}, problem
	}
	unix := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Unix() - int64(minutes)*60
	if unix < minUnix || unix > maxUnix {
		return time.Time{}, problemTimeYear
	}
	return time.Unix(unix, int64(nanos)).In(zone), ""
}

// parseFraction reads a decimal point and 1 to 9 digits, if there is a point, and returns how many bytes that took.
func parseFraction(b []byte) (nanos, n int, ok bool) {
	if len(b) == 0 || b[0] != '.' {
		return 0, 0, true
	}
	n = 1
	scale := 100_000_000
	for ; n < len(b) && isDigit(b[n]); n++ {
		nanos += int(b[n]-'0') * scale
		scale /= 10
	}
	return nanos, n, n >= 2 && n <= 10
}

// parseOffset reads what must be the rest of a timestamp: Z or ±hh:mm.
func parseOffset(b []byte) (minutes int, zone *time.Location, problem string) {
	switch {
	case len(b) == 0:
		return 0, nil, problemTimeOffset
	case len(b) == 1 && b[0] == 'Z':
		return 0, time.UTC, ""
	case len(b) == 1 && b[0] == 'z':
		return 0, nil, problemTimeCase
	case len(b) != 6 || b[0] != '+' && b[0] != '-' || b[3] != ':':
		return 0, nil, problemTimeForm
	}
	h, ok1 := digits2(b[1:])
	m, ok2 := digits2(b[4:])
	switch {
	case !ok1 || !ok2:
		return 0, nil, problemTimeForm
	case h > 23 || m > 59:
		return 0, nil, problemTimeZone
	}
	minutes = h*60 + m
	if b[0] == '-' {
		minutes = -minutes
	}
	return minutes, fixedZone(minutes), ""
}

func digits2(b []byte) (int, bool) {
	return int(b[0]-'0')*10 + int(b[1]-'0'), isDigit(b[0]) && isDigit(b[1])
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// zones keeps one zone per offset once seen: a country sends the same one thousands of times a minute, and the standard library
// shares only those of whole hours.
var zones [2*maxOffsetMinutes + 1]atomic.Pointer[time.Location]

func fixedZone(minutes int) *time.Location {
	z := &zones[minutes+maxOffsetMinutes]
	if l := z.Load(); l != nil {
		return l
	}
	// Two goroutines may both make it; either one is right, so the later one simply stays.
	l := time.FixedZone("", minutes*60)
	z.Store(l)
	return l
}
