package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is what a verifier needs of a report's body, read by this program's
// own means.
type report struct {
	trial, patient string
	id             [16]byte
	derived        bool
	at             instant
	offset         int16
	meaning        []byte // canonical meaning, docs/format.md §8
}

// readReport reads a body that was taken, so one that is well-formed; it is not
// a validator.
func readReport(body []byte) (report, error) {
	var r report
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &fields); err != nil {
		return r, errors.New("its body is not a JSON object")
	}
	var err error
	text := func(name, missing string) string {
		raw, ok := fields[name]
		if !ok {
			return missing
		}
		var s string
		if json.Unmarshal(raw, &s) != nil && err == nil {
			err = fmt.Errorf("its field %s is not a text", name)
		}
		return s
	}
	r.trial, r.patient = text("trialId", ""), text("patientId", "")
	id, instrument, comments := text("reportId", ""), text("instrument", "qol@1"), text("comments", "")
	at, timeErr := time.Parse(time.RFC3339Nano, text("timestamp", ""))
	if err != nil {
		return r, err
	}
	if timeErr != nil {
		return r, errors.New("its timestamp cannot be read")
	}
	_, offset := at.Zone()
	r.at, r.offset = instant{at.Unix(), uint32(at.Nanosecond())}, int16(offset/60)
	if r.derived = id == ""; r.derived {
		r.id = derivedID(r.trial, r.patient, r.at)
	} else if raw, e := hex.DecodeString(strings.ReplaceAll(id, "-", "")); e != nil || len(raw) != 16 {
		return r, errors.New("its reportId is not a UUID")
	} else {
		r.id = [16]byte(raw)
	}
	name, version, _ := strings.Cut(instrument, "@")
	v, e := strconv.ParseUint(version, 10, 32)
	if e != nil {
		return r, errors.New("its instrument is not id@version")
	}

	m := []byte("tidegate-meaning-v1\n")
	m = appendSized(m, []byte(r.trial))
	m = appendSized(m, []byte(r.patient))
	m = append(m, r.id[:]...)
	m = appendSized(m, []byte(name))
	m = binary.BigEndian.AppendUint32(m, uint32(v))
	m = appendInstant(m, r.at)
	if raw, ok := fields["qolScore"]; ok {
		score, e := strconv.ParseInt(string(raw), 10, 64)
		if e != nil {
			return r, errors.New("its qolScore is not a whole number")
		}
		m = binary.BigEndian.AppendUint64(append(m, 1), uint64(score))
	} else {
		m = append(m, 0)
	}
	if _, ok := fields["comments"]; ok {
		m = appendSized(append(m, 1), []byte(comments))
	} else {
		m = append(m, 0)
	}
	for _, name := range []string{"answers", "extensions"} {
		raw, ok := fields[name]
		if !ok {
			m = append(m, 0)
			continue
		}
		c, err := canonicalJSON(raw)
		if err != nil {
			return r, fmt.Errorf("its field %s has no canonical form", name)
		}
		m = appendSized(append(m, 1), c)
	}
	r.meaning = m
	return r, nil
}

func appendSized(b, part []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}

func appendInstant(b []byte, i instant) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(i.seconds)), i.nanos)
}

func derivedID(trial, patient string, at instant) [16]byte {
	b := []byte("tidegate-report-id-v1")
	b = appendSized(b, []byte(trial))
	b = appendSized(b, []byte(patient))
	sum := sha256.Sum256(appendInstant(b, at))
	id := [16]byte(sum[:16])
	id[6] = 0x80 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	return id
}

// canonicalJSON is docs/format.md §7 by way of a decoded tree, unlike the
// product, which never builds one.
func canonicalJSON(raw []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return appendValue(nil, v)
}

func appendValue(b []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v), nil
	case json.Number:
		n, err := canonicalNumber(string(v))
		return append(b, n...), err
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValue(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		b = append(b, '{')
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, name), ':')
			if b, err = appendValue(b, v[name]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, errors.New("no JSON value")
}

var shortEscapes = map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\t': `\t`, '\n': `\n`, '\f': `\f`, '\r': `\r`}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range s {
		if e, ok := shortEscapes[c]; ok {
			b = append(b, e...)
		} else if c < ' ' {
			b = fmt.Appendf(b, `\u%04x`, c)
		} else {
			b = append(b, string(c)...)
		}
	}
	return append(b, '"')
}

// canonicalNumber writes ±0.d × 10^n as docs/format.md §7 says.
func canonicalNumber(s string) (string, error) {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	exponent := int64(0)
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.ParseInt(s[i+1:], 10, 64)
		if err != nil || e > 1<<40 || e < -1<<40 {
			if strings.Trim(s[:i], "0.") == "" {
				return "0", nil
			}
			return "", errors.New("exponent out of bounds")
		}
		s, exponent = s[:i], e
	}
	whole, part, _ := strings.Cut(s, ".")
	n := int64(len(whole)) + exponent
	digits := whole + part
	trimmed := strings.TrimLeft(digits, "0")
	n -= int64(len(digits) - len(trimmed))
	d := strings.TrimRight(trimmed, "0")
	k := int64(len(d))
	zeros := func(c int64) string { return strings.Repeat("0", int(c)) }
	switch {
	case k == 0:
		return "0", nil
	case n-1 > 999999999 || n-1 < -999999999:
		return "", errors.New("exponent out of bounds")
	case k <= n && n <= 21:
		return sign + d + zeros(n-k), nil
	case 0 < n && n <= 21:
		return sign + d[:n] + "." + d[n:], nil
	case -6 < n && n <= 0:
		return sign + "0." + zeros(-n) + d, nil
	}
	point := ""
	if k > 1 {
		point = "." + d[1:]
	}
	return fmt.Sprintf("%s%s%se%+d", sign, d[:1], point, n-1), nil
}
