package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// These tests are inside the package because a program cannot be imported. They
// judge testdata/format and share nothing with the product but those files.

func vectors[T any](t *testing.T, name string) T {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "format", name))
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func raw(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rawHash(t *testing.T, s string) hash { return hash(raw(t, s)) }

func hashes(t *testing.T, list []string) []hash {
	out := make([]hash, len(list))
	for i := range list {
		out[i] = rawHash(t, list[i])
	}
	return out
}

func vectorKeys(t *testing.T) (keyList, string) {
	t.Helper()
	test := vectors[struct{ Fingerprint string }](t, "testkeys.json")
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "format", "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := readKeys(data, test.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return keys, test.Fingerprint
}

func TestEnvelopeVectors(t *testing.T) {
	type vector struct {
		Name, Hex, Leaf, Kind, ID, Trial, Subject, Actor, Device, BodyDigest, Meaning, Salt, Body string
		Flags, KindVersion                                                                        uint16
		ActorType                                                                                 byte
		TokenKey, Epoch, OccurredNanos, ReceivedNanos                                             uint32
		OccurredSeconds, ReceivedSeconds                                                          int64
		OffsetMinutes                                                                             int16
	}
	for _, v := range vectors[[]vector](t, "envelopes.json") {
		b := raw(t, v.Hex)
		got, err := readEnvelope(b)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		id := hex.EncodeToString(got.id[:])
		id = fmt.Sprintf("%s-%s-%s-%s-%s", id[:8], id[8:12], id[12:16], id[16:20], id[20:])
		want := envelope{
			v.Flags, v.Kind, v.KindVersion, got.id, v.Trial, v.Subject, v.ActorType, v.Actor, v.Device, v.TokenKey, v.Epoch,
			instant{v.OccurredSeconds, v.OccurredNanos},
			v.OffsetMinutes,
			instant{v.ReceivedSeconds, v.ReceivedNanos},
			rawHash(t, v.BodyDigest), rawHash(t, v.Meaning),
		}
		if got != want || id != v.ID {
			t.Errorf("%s: read %+v, must be %+v", v.Name, got, want)
		}
		if leafHash(b) != rawHash(t, v.Leaf) || saltedHash(raw(t, v.Salt), raw(t, v.Body)) != got.bodyDigest {
			t.Errorf("%s: another leaf or body digest", v.Name)
		}
	}
}

func TestFrameVectors(t *testing.T) {
	type vector struct {
		Name, Hex, Hash, Run, Prev, Root string
		Shard, Count                     uint32
		N                                uint64
		Time                             int64
		Erased                           []int
	}
	for _, v := range vectors[[]vector](t, "frames.json") {
		h, facts, err := readFrame(raw(t, v.Hex))
		if err != nil || len(check(h, facts)) > 0 {
			t.Errorf("%s: %v, %v", v.Name, err, check(h, facts))
			continue
		}
		want := header{v.Shard, [16]byte(raw(t, v.Run)), v.N, rawHash(t, v.Prev), rawHash(t, v.Root), v.Count, v.Time, rawHash(t, v.Hash)}
		if h != want {
			t.Errorf("%s: read %+v, must be %+v", v.Name, h, want)
		}
		for i := range facts {
			erased := false
			for _, e := range v.Erased {
				erased = erased || e == i
			}
			if facts[i].erased != erased {
				t.Errorf("%s: fact %d: erased is %v", v.Name, i, facts[i].erased)
			}
		}
	}
}

func TestTreeVectors(t *testing.T) {
	type vector struct {
		Leaves []string
		Root   string
		Paths  [][]string
		Ranges []struct {
			From, To int
			Proof    []string
		}
	}
	for _, v := range vectors[[]vector](t, "trees.json") {
		leaves, n := hashes(t, v.Leaves), len(v.Leaves)
		if rootHash(leaves) != rawHash(t, v.Root) {
			t.Errorf("%d leaves: another root", n)
		}
		for i := range leaves {
			if got, ok := pathRoot(leaves[i], i, n, hashes(t, v.Paths[i])); !ok || got != rawHash(t, v.Root) {
				t.Errorf("%d leaves: the path of %d leads elsewhere", n, i)
			}
		}
		for _, r := range v.Ranges {
			got, rest, ok := rangeRoot(leaves[r.From:r.To], 0, r.From, n, hashes(t, r.Proof))
			if !ok || len(rest) > 0 || got != rawHash(t, v.Root) {
				t.Errorf("%d leaves: the proof of [%d, %d) leads elsewhere", n, r.From, r.To)
			}
		}
	}
}

func TestReceiptVectors(t *testing.T) {
	keys, _ := vectorKeys(t)
	type vector struct {
		Frame, Text, Body, KeyID string
		Index                    int
		Path                     []string
	}
	for _, v := range vectors[[]vector](t, "receipts.json") {
		r, err := readReceipt(v.Text)
		if err != nil {
			t.Errorf("%s/%d: %v", v.Frame, v.Index, err)
			continue
		}
		if !r.proves() || keys.signed(r) != nil || r.index != v.Index || hex.EncodeToString(r.key[:]) != v.KeyID || len(r.path) != len(v.Path) {
			t.Errorf("%s/%d: does not prove: %v", v.Frame, v.Index, keys.signed(r))
		}
		if saltedHash(r.salt, raw(t, v.Body)) != r.envelope.bodyDigest {
			t.Errorf("%s/%d: its body does not fit", v.Frame, v.Index)
		}
	}
}

func TestMeaningVectors(t *testing.T) {
	type vector struct {
		Name, Body, ReportID, Meaning string
		Derived                       bool
	}
	for _, v := range vectors[[]vector](t, "meanings.json") {
		r, err := readReport(raw(t, v.Body))
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if !bytes.Equal(r.meaning, raw(t, v.Meaning)) || r.derived != v.Derived {
			t.Errorf("%s: another meaning: %q, must be %q", v.Name, r.meaning, raw(t, v.Meaning))
		}
	}
}

func TestInvalidVectors(t *testing.T) {
	keys, fingerprint := vectorKeys(t)
	type vector struct{ Name, What, Stage, Data, Reason string }
	for _, v := range vectors[[]vector](t, "invalid.json") {
		got := ""
		switch v.What {
		case "envelope":
			if _, err := readEnvelope(raw(t, v.Data)); err != nil {
				got = "form"
			}
		case "frame":
			h, facts, err := readFrame(raw(t, v.Data))
			if err != nil {
				got = "form"
			} else if len(check(h, facts)) > 0 {
				got = "hash"
			}
		case "receipt":
			r, err := readReceipt(v.Data)
			switch {
			case err != nil:
				got = "form"
			case !r.proves():
				got = "hash"
			case keys.signed(r) != nil:
				got = "keys"
			}
		case "keys":
			if _, err := readKeys([]byte(v.Data), fingerprint); err != nil {
				got = "form"
			}
		}
		if got != v.Stage {
			t.Errorf("%s: refused at %q, must be at %q (%s)", v.Name, got, v.Stage, v.Reason)
		}
	}
}

func TestCanonicalNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "0e9999999999999999999": "0", "-0.000": "0", "1": "1", "-1": "-1", "1.0": "1", "10": "10", "1e1": "10", "12.50": "12.5", "0.5": "0.5",
		"1e20": "100000000000000000000", "1e21": "1e+21", "123e19": "1.23e+21", "0.000001": "0.000001", "0.0000001": "1e-7", "1.5e-7": "1.5e-7",
		"123456789012345678901": "123456789012345678901", "1234567890123456789012": "1.234567890123456789012e+21", "1e999999999": "1e+999999999",
	} {
		if got, err := canonicalNumber(in); err != nil || got != want {
			t.Errorf("%s: %s, must be %s (%v)", in, got, want, err)
		}
	}
	for _, in := range []string{"1e1000000000", "1e-1000000000", "10e999999999", "1e99999999999999999999"} {
		if got, err := canonicalNumber(in); err == nil {
			t.Errorf("%s: %s, must be out of bounds", in, got)
		}
	}
}
