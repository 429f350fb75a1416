package load

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// result is what a phone knows of its report after a try.
type result uint8

const (
	resultUnsent    result = iota // never tried: the run was stopped before
	resultAcked                   // a receipt proves it is durable: the phone may forget it
	resultRefused                 // surely not recorded, so the server said: again later
	resultUnreached               // no connection came about, so surely not recorded: again later
	resultUnknown                 // may be recorded: again later, with the same id and bytes
	resultFailed                  // wrong for good: the phone shows it and gives up
	resultCount
)

// again says whether a phone tries once more after such a result.
func (r result) again() bool {
	return r == resultRefused || r == resultUnreached || r == resultUnknown
}

// answer is what came of one try.
type answer struct {
	result     result
	status     int           // of HTTP, 0 without an answer
	what       string        // for the table of answers
	retryAfter time.Duration // 0: not said
	took       time.Duration // from the try's own beginning
}

// said is the part of a JSON answer, or of a line of one, that a phone reads.
type said struct {
	ReportID   string `json:"reportId"`
	Receipt    string `json:"receipt"`
	Accepted   any    `json:"accepted"`   // false, "unknown", or true in a line
	RetryAfter int64  `json:"retryAfter"` // seconds; of a line
}

// classify reads an answer that is not a success. What does not clearly say
// that nothing was recorded counts as unknown.
func classify(status int, header http.Header, body []byte) answer {
	a := answer{status: status, retryAfter: retryAfter(header)}
	var s said
	notRecorded := json.Unmarshal(body, &s) == nil && s.Accepted == false
	switch {
	case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout:
		a.result, a.what = resultUnknown, strconv.Itoa(status)+" unknown"
		if notRecorded {
			a.result, a.what = resultRefused, strconv.Itoa(status)+" refused"
		}
	case status >= 400:
		a.result, a.what = resultFailed, strconv.Itoa(status)
	default:
		// No success and no error: something stands between phone and server.
		a.result, a.what = resultUnknown, strconv.Itoa(status)+" unexpected"
	}
	return a
}

// retryAfter reads the header in its form of seconds; a date is not used by
// this server and would need the phone's clock to be right.
func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.ParseInt(header.Get("Retry-After"), 10, 32)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
