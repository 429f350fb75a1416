package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// invalidVectors are byte strings that every reader must refuse, and why.
func invalidVectors(t testing.TB) []invalidVector {
	var out []invalidVector
	out = append(out, invalidEnvelopes(t)...)
	out = append(out, invalidFrames(t)...)
	out = append(out, invalidReceipts(t)...)
	return append(out, invalidKeys(t)...)
}

const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// with returns a changed copy.
func with(b []byte, change func(b []byte)) []byte {
	b = bytes.Clone(b)
	change(b)
	return b
}

func set(at int, v ...byte) func([]byte) { return func(b []byte) { copy(b[at:], v) } }

func envelopeNamed(t testing.TB, name string) []byte {
	names, facts := vectorFacts()
	for i := range names {
		if names[i] == name {
			b, err := facts[i].AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatal("no envelope " + name)
	return nil
}

func invalidEnvelopes(t testing.TB) []invalidVector {
	// Offsets in the minimal envelope: kind "k" at 3, its version 5, id 7, trial 23, subject 24, actor type 25, actor 26, device 27,
	// token key 28, epoch 32, occurred 36, offset 48, received 50, body digest 62, meaning 94, end 126.
	b := envelopeNamed(t, "minimal")
	long := envelopeNamed(t, "maximal")
	var out []invalidVector
	add := func(name string, data []byte, reason string) {
		out = append(out, invalidVector{"envelope-" + name, "envelope", "form", hx(data), reason})
	}
	add("empty", nil, "no bytes")
	add("version-0", with(b, set(0, 0)), "version 0 does not exist")
	add("version-2", with(b, set(0, 2)), "a version this format does not know")
	add("cut", b[:len(b)-1], "one byte is missing at the end")
	add("trailing", append(bytes.Clone(b), 0), "one byte after the end")
	add("no-kind", append(append(bytes.Clone(b[:3]), 0), b[5:]...), "the kind's name is empty")
	add("string-too-long", append(append(bytes.Clone(long[:3]), 65), append([]byte("k"), long[4:]...)...), "a string of 65 bytes")
	add("string-past-end", with(b, set(27, 255)), "a string length past the end")
	add("string-control", with(b, set(4, 0x1f)), "a control character in a string")
	add("string-delete", with(b, set(4, 0x7f)), "U+007F in a string")
	add("string-accent", with(b, set(4, 0xe9)), "a byte above 0x7E in a string")
	add("actor-0", with(b, set(25, 0)), "actor type 0")
	add("actor-5", with(b, set(25, 5)), "actor type 5")
	add("nanoseconds", with(b, func(b []byte) { binary.BigEndian.PutUint32(b[44:], 1_000_000_000) }), "1,000,000,000 nanoseconds")
	add("offset-24h", with(b, func(b []byte) { binary.BigEndian.PutUint16(b[48:], 1440) }), "an offset of +24:00")
	minus24 := int16(-1440)
	add("offset-minus-24h", with(b, func(b []byte) { binary.BigEndian.PutUint16(b[48:], uint16(minus24)) }), "an offset of -24:00")
	add("before-year-0", with(b, func(b []byte) {
		sec := int64(-62167219200 - 86400 - 1)
		binary.BigEndian.PutUint64(b[36:], uint64(sec))
	}), "an instant one second before the first that is allowed")
	add("after-year-9999", with(b, func(b []byte) { binary.BigEndian.PutUint64(b[50:], 253402300799+86400+1) }), "an instant one second after the last that is allowed")
	return out
}

func invalidFrames(t testing.TB) []invalidVector {
	frames := vectorFrames(t)
	one, two, erased := frames[0].sealed.Bytes, frames[1].sealed.Bytes, frames[4].sealed.Bytes
	var out []invalidVector
	add := func(name, stage string, data []byte, reason string) {
		out = append(out, invalidVector{"frame-" + name, "frame", stage, hx(data), reason})
	}
	const header = 4 // after the frame's magic
	add("empty", "form", nil, "no bytes")
	add("magic", "form", with(one, set(3, '2')), "begins with TGF2")
	add("header-magic", "form", with(one, set(header+3, '2')), "the header begins with TGH2")
	add("count-0", "form", with(one, set(header+96, 0, 0, 0, 0)), "no facts")
	add("count-huge", "form", with(one, set(header+96, 0, 1, 0, 1)), "65,537 facts")
	add("count-more", "form", with(one, set(header+96, 0, 0, 0, 2)), "says two facts, holds one")
	add("count-fewer", "form", with(two, set(header+96, 0, 0, 0, 1)), "says one fact, holds two")
	add("cut", "form", one[:len(one)-1], "one byte is missing at the end")
	add("trailing", "form", append(bytes.Clone(one), 0), "one byte after the end")
	add("envelope-short", "form", with(one, set(header+108, 0, 124)), "an envelope of 124 bytes")
	add("envelope-long", "form", with(one, set(header+108, 0x01, 0xbe)), "an envelope of 446 bytes")
	size := int(binary.BigEndian.Uint16(one[header+108:]))
	content := header + 108 + 2 + size
	add("state-0", "form", with(one, set(content, 0)), "content state 0")
	add("state-3", "form", with(one, set(content, 3)), "content state 3")
	add("body-long", "form", with(one, set(content+1+16, 0, 1, 0, 1)), "a body of 65,537 bytes")
	add("erased-with-content", "form", with(one, set(content, 2)), "erased, and bytes behind it")
	add("erased-trailing", "form", append(bytes.Clone(erased), 2), "one content more than envelopes")

	add("body-flipped", "hash", with(one, func(b []byte) { b[len(b)-1] ^= 1 }), "the last bit of the body: it does not fit its digest")
	add("salt-flipped", "hash", with(one, func(b []byte) { b[content+1] ^= 0x80 }), "a bit of the salt: the body does not fit its digest")
	add("envelope-flipped", "hash", with(one, func(b []byte) { b[header+108+2+1] ^= 1 }), "a flag in the envelope: the leaf does not fit the root")
	add("root-flipped", "hash", with(one, func(b []byte) { b[header+64] ^= 1 }), "a bit of the root")
	first := header + 108
	n1 := 2 + int(binary.BigEndian.Uint16(two[first:]))
	n2 := 2 + int(binary.BigEndian.Uint16(two[first+n1:]))
	swapped := append(bytes.Clone(two[:first]), two[first+n1:first+n1+n2]...)
	swapped = append(append(swapped, two[first:first+n1]...), two[first+n1+n2:]...)
	add("envelopes-swapped", "hash", swapped, "two envelopes changed places: the leaves do not fit the root")
	bad := with(one, set(first+2, 9))
	add("envelope-version", "hash", bad, "an envelope of version 9 within a well-formed frame")
	return out
}

func invalidReceipts(t testing.TB) []invalidVector {
	frames := vectorFrames(t)
	seven, which, text := frames[3], -1, ""
	s := sign(activeKey, journal.ClassLocalFsync, seven.sealed, seven.tree)
	// The spelling vectors need a length that leaves unused bits in the last character, and both '-' and '_' in the text.
	for i := 3; i < 6; i++ {
		text = s.Receipt(i, seven.entries[i].Envelope, seven.entries[i].Salt).String()
		if len(text[9:])%4 != 0 && strings.Contains(text, "-") && strings.Contains(text, "_") {
			which = i
			break
		}
	}
	if which < 0 {
		t.Fatal("no receipt for the spelling vectors: change the vectors' facts")
	}
	b := binaryOf(t, text)
	var out []invalidVector
	add := func(name, stage, text, reason string) {
		out = append(out, invalidVector{"receipt-" + name, "receipt", stage, text, reason})
	}
	bin := func(name, stage, reason string, change func(b []byte)) {
		add(name, stage, rebuild(with(b, change)), reason)
	}
	add("empty", "form", "", "no text")
	add("prefix", "form", "receipt2."+text[9:], "another prefix")
	add("prefix-case", "form", "RECEIPT1."+text[9:], "the prefix in capitals")
	add("prefix-only", "form", "receipt1.", "nothing behind the prefix")
	add("space-before", "form", " "+text, "a space in front")
	add("line-end", "form", text+"\n", "a line end behind it")
	add("line-break", "form", text[:76]+"\r\n"+text[76:], "a line break inside")
	add("padding", "form", text+"=", "base64 padding")
	last := strings.IndexByte(base64URL, text[len(text)-1])
	add("unused-bits", "form", text[:len(text)-1]+string(base64URL[last|1]), "bits set in the last character that belong to no byte")
	add("plus", "form", strings.Replace(text, "-", "+", 1), "'+' of the other base64 alphabet for '-'")
	add("slash", "form", strings.Replace(text, "_", "/", 1), "'/' of the other base64 alphabet for '_'")
	add("upper-case", "form", "receipt1."+strings.ToUpper(text[9:]), "all letters in capitals: other bytes, so the check sum does not fit")
	add("cut", "form", text[:len(text)-4], "three bytes are missing at the end")
	add("checksum", "form", "receipt1."+encode64(with(b, func(b []byte) { b[len(b)-1] ^= 1 })), "a bit of the check sum")
	add("salt", "form", "receipt1."+encode64(with(b, func(b []byte) { b[187+3*32] ^= 1 })), "a bit of the salt, the check sum left as it was")
	add("trailing", "form", rebuild(append(append(bytes.Clone(b[:len(b)-4]), 0), b[len(b)-4:]...)), "one byte behind the envelope, check sum made to fit")
	bin("version-2", "form", "format version 2", set(0, 2))
	bin("class-0", "form", "class 0", set(1, 0))
	bin("class-6", "form", "class 6", set(1, 6))
	bin("header-magic", "form", "the header begins with TGH2", set(74+3, '2'))
	bin("count-0", "form", "a header of no facts", set(74+96, 0, 0, 0, 0))
	bin("index", "form", "index 7 of 7 facts", set(182, 0, 0, 0, 7))
	bin("index-path", "form", "index 6 of 7 facts has a path of 2, not 3", set(182, 0, 0, 0, 6))
	bin("path-short", "form", "a path of 2 where 3 must be", set(186, 2))
	bin("path-long", "form", "a path of 4 where 3 must be", set(186, 4))
	at := 187 + 3*32 + 16
	bin("envelope-length", "form", "an envelope length one too large", func(b []byte) { b[at+1]++ })
	bin("envelope-version", "form", "an envelope of version 2", set(at+2, 2))

	bin("index-moved", "hash", "another index of the same path length", set(182, 0, 0, 0, 2))
	bin("path-flipped", "hash", "a bit of the path", func(b []byte) { b[187] ^= 1 })
	bin("root-flipped", "hash", "a bit of the header's root", func(b []byte) { b[74+64] ^= 1 })
	bin("envelope-flipped", "hash", "a flag in the envelope", func(b []byte) { b[at+2+2] ^= 1 })

	bin("class-flipped", "keys", "class 2 where 1 was signed", set(1, 2))
	bin("signature-flipped", "keys", "a bit of the signature", func(b []byte) { b[10] ^= 1 })
	bin("time-flipped", "keys", "a bit of the header's time", func(b []byte) { b[74+107] ^= 1 })
	bin("prev-flipped", "keys", "a bit of the header's prev", func(b []byte) { b[74+32] ^= 1 })
	bin("key-changed", "keys", "names the rotated key, which did not sign it", func(b []byte) {
		id := receipt.IDOf(pub(rotatedKey))
		copy(b[2:], id[:])
	})
	for _, k := range []struct {
		name   string
		key    ed25519.PrivateKey
		reason string
	}{
		{"stranger", strangerKey, "well signed by a key the root did not certify"},
		{"compromised", leakedKey, "well signed by a key that was retired as compromised"},
	} {
		s := sign(k.key, journal.ClassLocalFsync, seven.sealed, seven.tree)
		add(k.name, "keys", s.Receipt(which, seven.entries[which].Envelope, seven.entries[which].Salt).String(), k.reason)
	}
	return out
}

func invalidKeys(t testing.TB) []invalidVector {
	var out []invalidVector
	add := func(name, reason string, change func(k *receipt.Keys)) {
		k := vectorKeys()
		change(&k)
		data, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, invalidVector{"keys-" + name, "keys", "form", string(data), reason})
	}
	other := func(k ed25519.PrivateKey) string { return encode64(pub(k)) }
	add("other-root", "another root's public key under this fingerprint", func(k *receipt.Keys) { k.Root.PublicKey = other(strangerKey) })
	add("root-short", "a root key of 31 bytes", func(k *receipt.Keys) { k.Root.PublicKey = encode64(pub(rootKey)[:31]) })
	add("public-key", "another public key under this certificate", func(k *receipt.Keys) { k.Keys[0].PublicKey = other(strangerKey) })
	add("public-key-and-id", "another public key with its own id, under this certificate", func(k *receipt.Keys) {
		k.Keys[0].PublicKey, k.Keys[0].KeyID = other(strangerKey), receipt.IDOf(pub(strangerKey)).String()
	})
	add("self-certified", "a certificate that the key signed itself", func(k *receipt.Keys) {
		k.Keys[0] = receipt.Certify(strangerKey, pub(strangerKey), certifiedAt)
	})
	add("not-before", "a changed notBefore", func(k *receipt.Keys) { k.Keys[0].NotBefore++ })
	add("id-case", "a key id in capitals", func(k *receipt.Keys) { k.Keys[0].KeyID = strings.ToUpper(k.Keys[0].KeyID) })
	add("certificate-padding", "a certificate with base64 padding", func(k *receipt.Keys) { k.Keys[0].Certificate += "==" })
	add("certificate-line-end", "a certificate with a line end", func(k *receipt.Keys) { k.Keys[0].Certificate += "\n" })
	add("twice", "one key listed twice: the second entry could hide the first one's retirement", func(k *receipt.Keys) {
		again := k.Keys[2]
		again.Retired = nil
		k.Keys = append(k.Keys, again)
	})
	add("reason", "compromised turned into rotated", func(k *receipt.Keys) { k.Keys[2].Retired.Reason = receipt.RetiredRotated })
	add("retired-at", "a changed time of retirement", func(k *receipt.Keys) { k.Keys[2].Retired.At-- })
	add("retirement-moved", "another key's retirement", func(k *receipt.Keys) { k.Keys[0].Retired = k.Keys[1].Retired })
	add("retirement-renamed", "another key's retirement under this key's id", func(k *receipt.Keys) {
		r := *k.Keys[1].Retired
		r.KeyID = k.Keys[0].KeyID
		k.Keys[0].Retired = &r
	})
	out = append(out, invalidVector{"keys-trailing", "keys", "form", "{}{}", "a second JSON value"})
	return out
}

// judge says at which stage the product refuses data: form, hash, keys, or "" when it takes it.
func judge(t testing.TB, what string, data string, keys *receipt.KeySet) string {
	switch what {
	case "envelope":
		if _, err := epro.DecodeEnvelope(unhex(t, data)); err != nil {
			return "form"
		}
	case "frame":
		f, err := journal.DecodeFrame(unhex(t, data))
		if err != nil {
			return "form"
		}
		if len(f.Check()) > 0 {
			return "hash"
		}
	case "receipt":
		r, err := receipt.Parse(data)
		if err != nil {
			return "form"
		}
		root, ok := journal.RootFromPath(epro.Leaf(r.Envelope), int(r.Index), int(r.Header.Count), r.Path)
		if err := r.Check(keys); err != nil {
			if !ok || root != r.Header.Root {
				return "hash"
			}
			return "keys"
		}
	case "keys":
		if _, err := receipt.ParseKeys([]byte(data), receipt.Fingerprint(pub(rootKey))); err != nil {
			return "form"
		}
	default:
		t.Fatalf("unknown thing %q", what)
	}
	return ""
}

func TestInvalidVectorsAreRefused(t *testing.T) {
	keys := vectorKeySet(t)
	for _, v := range readVectors[[]invalidVector](t, "invalid.json") {
		if got := judge(t, v.What, v.Data, keys); got != v.Stage {
			t.Errorf("%s: refused at %q, must be at %q (%s)", v.Name, got, v.Stage, v.Reason)
		}
	}
}

func TestValidVectorsAreTaken(t *testing.T) {
	keys := vectorKeySet(t)
	for _, v := range readVectors[[]envelopeVector](t, "envelopes.json") {
		if got := judge(t, "envelope", v.Hex, keys); got != "" {
			t.Errorf("envelope %s: refused at %s", v.Name, got)
		}
	}
	for _, v := range readVectors[[]frameVector](t, "frames.json") {
		if got := judge(t, "frame", v.Hex, keys); got != "" {
			t.Errorf("frame %s: refused at %s", v.Name, got)
		}
	}
	for _, v := range readVectors[[]receiptVector](t, "receipts.json") {
		if got := judge(t, "receipt", v.Text, keys); got != "" {
			t.Errorf("receipt %s/%d: refused at %s", v.Frame, v.Index, got)
		}
		r, err := receipt.Parse(v.Text)
		if err != nil {
			continue
		}
		if r.Class.String() != v.Class || r.Index != v.Index || r.String() != v.Text || !r.MatchesBody(unhex(t, v.Body)) {
			t.Errorf("receipt %s/%d: does not say what its vector says", v.Frame, v.Index)
		}
	}
	for _, v := range readVectors[[]batchVector](t, "batches.json") {
		lines := make([]receipt.Line, len(v.Lines))
		for i, l := range v.Lines {
			lines[i] = receipt.Line{Envelope: unhex(t, l.Envelope), Salt: epro.Salt(unhex(t, l.Salt))}
		}
		got, err := v.Batch.Receipts(lines)
		if err != nil {
			t.Errorf("batch %s: %v", v.Frame, err)
			continue
		}
		for i := range got {
			if got[i].String() != v.Texts[i] {
				t.Errorf("batch %s, line %d: another receipt than its vector", v.Frame, i)
			}
		}
	}
	if got := judge(t, "keys", string(marshal(t, vectorKeys())), keys); got != "" {
		t.Errorf("keys.json: refused at %s", got)
	}
}
