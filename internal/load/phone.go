package load

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
)

// Streams of the seeded generators. Phone i has the stream streamPhones + i.
const (
	streamSchedule = 1
	streamPhones   = 1 << 32
)

// phones makes each phone's identity, body and token. The same phone always
// gets the same bytes, so nothing of a phone is kept between its tries.
type phones struct {
	opts    *Options
	start   time.Time // of the schedule
	expires time.Time // of the tokens
	due     []time.Duration
}

// report is what one phone sends.
type report struct {
	id      epro.UUID
	patient string
	body    []byte
}

// comments are of the lengths that patients write: most nothing or a few words.
var comments = [...]string{
	"", "", "", "", "",
	"Felt tired in the afternoon.",
	"Slept well, less pain than yesterday.",
	"Nausea after breakfast, gone by noon. Took the tablet with water as advised.",
	"Müde, aber es geht. Die Übungen haben geholfen.",
	"昨晚睡得不好，今天早上有点头晕。",
	"Walked to the market and back for the first time since the treatment began. My knees hurt in the evening but it was worth it; " +
		"I will try again on Thursday if the weather holds, and tell the nurse about the swelling at my next visit.",
}

// offsets are where the phones are.
var offsets = [...]int{-5 * 60, 0, 60, 120, 5*60 + 30, 8 * 60}

// patient is the id of phone i's participant.
func (p *phones) patient(i int) string { return fmt.Sprintf("P-%06d", p.opts.First+i) }

// report is what phone i sends. It was filled in during the minute before the
// phone meant to send it.
func (p *phones) report(i int) report {
	random := rand.New(rand.NewPCG(p.opts.Seed, streamPhones+uint64(i)))
	r := report{patient: p.patient(i)}
	for j := 0; j < len(r.id); j += 8 {
		v := random.Uint64()
		for k := range 8 {
			r.id[j+k] = byte(v >> (8 * k))
		}
	}
	r.id[6], r.id[8] = r.id[6]&0x0f|0x40, r.id[8]&0x3f|0x80 // version 4, RFC 9562
	zone := time.FixedZone("", 60*offsets[random.IntN(len(offsets))])
	completed := p.start.Add(p.due[i] - time.Second - time.Duration(random.Int64N(int64(time.Minute)))).Truncate(time.Millisecond)
	b := make([]byte, 0, 512)
	b = append(b, `{"patientId":"`...)
	b = append(b, r.patient...)
	b = append(b, `","trialId":`...)
	b = strconv.AppendQuote(b, p.opts.Trial)
	b = append(b, `,"reportId":"`...)
	b, _ = r.id.AppendText(b) // never fails
	b = append(b, `","timestamp":"`...)
	b = completed.In(zone).AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","qolScore":`...)
	b = strconv.AppendInt(b, random.Int64N(epro.MaxScore+1), 10)
	if comment := comments[random.IntN(len(comments))]; comment != "" {
		b = append(b, `,"comments":"`...)
		b = append(b, comment...)
		b = append(b, '"')
	}
	r.body = append(b, '}')
	return r
}

// firstEpoch is that of every token before the first revocation.
const firstEpoch = 1

// token is phone i's own. It is the same at each try: device-bound and long-lived.
func (p *phones) token(i int) (string, error) {
	return p.opts.Keys.Mint(auth.Claims{
		Kind: auth.KindParticipant, Scope: auth.ScopeSubmit, Trial: p.opts.Trial,
		Participant: p.patient(i), Device: "load", Epoch: firstEpoch, Expires: p.expires,
	})
}

// relayToken is that of a relay of every site of the trial.
func (p *phones) relayToken() (string, error) {
	return p.opts.Keys.Mint(auth.Claims{
		Kind: auth.KindRelay, Scope: auth.ScopeRelay, Trial: p.opts.Trial, Relay: "load", Epoch: firstEpoch, Expires: p.expires,
	})
}

// appendAck appends the line of the acks file: what the phone may now forget.
func (r *report) appendAck(dst []byte, trial, receipt string) []byte {
	sum := sha256.Sum256(r.body)
	dst = append(dst, `{"reportId":"`...)
	dst, _ = r.id.AppendText(dst) // never fails
	dst = append(dst, `","patientId":"`...)
	dst = append(dst, r.patient...)
	dst = append(dst, `","trialId":`...)
	dst = strconv.AppendQuote(dst, trial)
	dst = append(dst, `,"sha256":"`...)
	dst = hex.AppendEncode(dst, sum[:])
	dst = append(dst, `","receipt":"`...)
	dst = append(dst, receipt...)
	return append(dst, "\"}\n"...)
}
