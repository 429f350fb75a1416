package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// ack is one line of what `tidegate load --acks` writes: an answer that a phone
// got, after which it may forget its report.
type ack struct {
	ReportID  string `json:"reportId"`
	PatientID string `json:"patientId"`
	TrialID   string `json:"trialId"`
	SHA256    string `json:"sha256"` // of the body's bytes as sent, hexadecimal
	Receipt   string `json:"receipt"`
	Derived   bool   `json:"derived"`
}

// verdict is what became of all acknowledgements.
type verdict struct {
	acknowledged, reports  int64
	lost, altered, doubled int64
	unproven, erased       int64
	signatures             bool // receipts were checked against certified keys
	cut                    bool // the last line has no end: its writer was stopped
	faults                 faults
	seen                   map[hash]bool
	signed                 map[hash]error // by what was signed, because a frame's receipts share it
}

// size is how many bytes of the acks file are to be judged. It is taken before
// the journal is walked: what was acknowledged then must be in the journal.
func size(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New(path + " is not a regular file")
	}
	return info.Size(), nil
}

// judge checks every acknowledgement in the first size bytes of the file.
func judge(path string, size int64, a *audit, keys keyList) (*verdict, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v := &verdict{signatures: keys != nil, seen: map[hash]bool{}, signed: map[hash]error{}}
	in := bufio.NewReaderSize(io.LimitReader(f, size), 1<<16)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// A writer that was killed leaves part of a line; it told nobody of it.
			v.cut = len(line) > 0
			return v, nil
		}
		if err != nil {
			return nil, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var k ack
		if err := json.Unmarshal(line, &k); err != nil {
			return nil, fmt.Errorf("line %d of %s is not an acknowledgement: %w", n, path, err)
		}
		v.ack(n, &k, a, keys)
	}
}

func (v *verdict) ack(n int, k *ack, a *audit, keys keyList) {
	v.acknowledged++
	id, err := hex.DecodeString(strings.ReplaceAll(k.ReportID, "-", ""))
	if err != nil || len(id) != 16 {
		v.unproven++
		v.faults.add("acknowledgement %d: its reportId is not a UUID", n)
		return
	}
	key := reportKey(k.TrialID, k.PatientID, [16]byte(id))
	versions := a.reports[key]
	if !v.seen[key] {
		v.seen[key] = true
		v.reports++
		if why := doubled(versions); why != "" {
			v.doubled++
			v.faults.add("acknowledgement %d: doubled: %s", n, why)
		}
	}
	r, err := readReceipt(k.Receipt)
	if err != nil {
		v.unproven++
		v.faults.add("acknowledgement %d: its receipt does not prove: %v", n, err)
	} else if err := v.prove(r, key, keys); err != nil {
		v.unproven++
		v.faults.add("acknowledgement %d: its receipt does not prove: %v", n, err)
		r = nil
	}
	v.find(n, k, r, versions, a)
}

// prove says why a receipt proves nothing about this report, or nil.
func (v *verdict) prove(r *receipt, key hash, keys keyList) error {
	e := r.envelope
	if reportKey(e.trial, e.subject, e.id) != key || e.kind != "report" {
		return errors.New("it is another report's")
	}
	if !r.proves() {
		return errors.New("its envelope is not in the frame it names")
	}
	if keys == nil {
		return nil
	}
	what := leafHash(append(statement(r.header.hash, r.class, r.key), r.signature...))
	err, known := v.signed[what]
	if !known {
		err = keys.signed(r)
		v.signed[what] = err
	}
	return err
}

// find looks for the acknowledged report in the journal: lost, altered, or there
// to the byte.
func (v *verdict) find(n int, k *ack, r *receipt, versions []version, a *audit) {
	lost := func(why string) {
		v.lost++
		v.faults.add("acknowledgement %d: lost: %s", n, why)
	}
	altered := func(why string) {
		v.altered++
		v.faults.add("acknowledgement %d: altered: %s", n, why)
	}
	if len(versions) == 0 {
		lost("the journal has no report under its id")
		return
	}
	if r == nil {
		for _, o := range versions {
			if hex.EncodeToString(o.body[:]) == k.SHA256 {
				return // there, though its receipt proves nothing
			}
		}
		altered("no report under its id has the bytes that were sent")
		return
	}
	position, ok := a.headers[r.header.hash]
	if !ok {
		lost("the frame of its receipt is not in the journal")
		return
	}
	for _, o := range versions {
		if o.position != position || o.index != r.index {
			continue
		}
		switch {
		case o.leaf != leafHash(r.raw):
			altered(fmt.Sprintf("frame %d holds another envelope in its place", position))
		case o.erased:
			v.erased++
		case hex.EncodeToString(o.body[:]) != k.SHA256:
			altered(fmt.Sprintf("frame %d holds other bytes than were sent", position))
		}
		return
	}
	altered(fmt.Sprintf("frame %d does not hold it in the place its receipt names", position))
}
