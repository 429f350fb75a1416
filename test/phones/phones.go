// Package phones are simulated phones that share no code with the product. Each
// makes reports without end and sends every one, with the same id and the same
// bytes, until it is acknowledged, as a phone must. Every acknowledgement is
// written down, for an audit, before anything else believes it.
package phones

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Phone is one device of one participant.
type Phone struct{ Patient, Trial, Token string }

// Limits of a phone.
const (
	tryLimit = 20 * time.Second       // of one try; longer than a server lets a caller wait
	short    = 20 * time.Millisecond  // before the next try when nobody answered
	longer   = 100 * time.Millisecond // before the next try after a refusal
)

// Crowd are phones and what became of their reports. Its counters may be read
// at any time.
type Crowd struct {
	t      testing.TB
	phones []Phone
	client *http.Client
	acks   *os.File
	urls   atomic.Pointer[[]string]
	ended  atomic.Bool // no new reports
	gaveUp atomic.Bool // not even old ones
	work   sync.WaitGroup

	// Reports: begun, acknowledged, acknowledged once more.
	Offered, Acked, Repeated atomic.Int64
	// Tries that ended otherwise: refused as surely not recorded, with an unknown
	// outcome, with no answer at all, and of these the ones that waited in vain.
	Refused, Unknown, NoAnswer, Hung atomic.Int64

	mu     sync.Mutex
	last   time.Time // of the last acknowledgement
	outage time.Duration
	wrong  []string // answers that no phone may get
}

// NewCrowd opens the file of acknowledgements; Start sets the phones going.
func NewCrowd(t testing.TB, acks string, phones []Phone) *Crowd {
	t.Helper()
	f, err := os.OpenFile(acks, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c := &Crowd{t: t, phones: phones, acks: f, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
	}}
	c.At()
	t.Cleanup(func() {
		c.gaveUp.Store(true)
		c.finish()
		c.client.CloseIdleConnections()
		_ = f.Close()
	})
	return c
}

// At tells the phones where gateways are: each try goes to one of them.
func (c *Crowd) At(urls ...string) { c.urls.Store(&urls) }

// Start sets so many phones going.
func (c *Crowd) Start(phones int) {
	c.Mark()
	for i := range phones {
		c.work.Go(func() {
			r := mathrand.New(mathrand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
			for !c.ended.Load() {
				c.one(r, c.phones[r.IntN(len(c.phones))])
			}
		})
	}
}

func (c *Crowd) finish() {
	c.ended.Store(true)
	c.work.Wait()
}

// Settle makes no new reports and waits until those in hand are acknowledged,
// within the limit.
func (c *Crowd) Settle(limit time.Duration) {
	c.t.Helper()
	timer := time.AfterFunc(limit, func() { c.gaveUp.Store(true) })
	c.finish()
	timer.Stop()
	if c.Acked.Load() != c.Offered.Load() {
		c.t.Errorf("%d of %d reports are not acknowledged after %s", c.Offered.Load()-c.Acked.Load(), c.Offered.Load(), limit)
	}
}

// Mark begins the measure of the longest outage anew.
func (c *Crowd) Mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.outage = time.Now(), 0
}

// Outage is the longest time since Mark in which no phone at all got an
// acknowledgement.
func (c *Crowd) Outage() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.outage, time.Since(c.last))
}

// report is what a phone made and keeps until it is acknowledged.
type report struct {
	Phone
	id   string
	body []byte
	ack  []byte // the line for the acks file, up to the receipt
}

func newReport(r *mathrand.Rand, p Phone) report {
	var u [16]byte
	_, _ = rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	body := fmt.Appendf(nil, `{"patientId":%q,"trialId":%q,"reportId":%q,"timestamp":%q,"qolScore":%d,"comments":%q}`,
		p.Patient, p.Trial, id, time.Now().UTC().Format(time.RFC3339Nano), r.IntN(11), "Slept well. "+strings.Repeat("Woke twice. ", r.IntN(8)))
	sum := sha256.Sum256(body)
	return report{p, id, body, fmt.Appendf(nil, `{"reportId":%q,"patientId":%q,"trialId":%q,"sha256":"%x","receipt":`, id, p.Patient, p.Trial, sum)}
}

// one makes a report and sends it until it is acknowledged. Now and then the
// phone goes away before the answer, or does not believe it and asks again.
func (c *Crowd) one(r *mathrand.Rand, p Phone) {
	rep := newReport(r, p)
	c.Offered.Add(1)
	for try := 0; !c.gaveUp.Load(); try++ {
		limit := tryLimit
		if try == 0 && r.IntN(16) == 0 {
			limit = time.Duration(r.IntN(5000)) * time.Microsecond
		}
		ok, pause := c.try(r, &rep, limit)
		if ok {
			c.Acked.Add(1)
			break
		}
		time.Sleep(pause/2 + time.Duration(r.Int64N(int64(pause))))
	}
	if r.IntN(16) == 0 && !c.gaveUp.Load() {
		if ok, _ := c.try(r, &rep, tryLimit); ok {
			c.Repeated.Add(1)
		}
	}
}

// answer is what a phone reads.
type answer struct {
	ReportID string `json:"reportId"`
	Receipt  string `json:"receipt"`
	Accepted any    `json:"accepted"`
}

// try sends a report once.
func (c *Crowd) try(r *mathrand.Rand, rep *report, limit time.Duration) (acked bool, pause time.Duration) {
	urls := *c.urls.Load()
	if len(urls) == 0 {
		return false, short
	}
	status, a, err := c.post(urls[r.IntN(len(urls))], rep, limit)
	switch {
	case err != nil:
		c.NoAnswer.Add(1)
		if limit == tryLimit && errors.Is(err, context.DeadlineExceeded) {
			c.Hung.Add(1)
		}
		return false, short
	case status == http.StatusOK && a.ReportID == rep.id && a.Receipt != "":
		if _, err := c.acks.Write(fmt.Appendf(slices.Clip(rep.ack), "%q}\n", a.Receipt)); err != nil {
			c.note("write an acknowledgement: " + err.Error())
			return false, short
		}
		c.mu.Lock()
		now := time.Now()
		c.outage, c.last = max(c.outage, now.Sub(c.last)), now
		c.mu.Unlock()
		return true, 0
	case status == http.StatusServiceUnavailable && a.Accepted == false:
		c.Refused.Add(1)
		return false, longer
	case status == http.StatusServiceUnavailable && a.Accepted == "unknown":
		c.Unknown.Add(1)
		return false, longer
	}
	c.note(fmt.Sprintf("status %d, reportId %q, accepted %v", status, a.ReportID, a.Accepted))
	return false, longer
}

func (c *Crowd) post(url string, rep *report, limit time.Duration) (status int, a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/patient/report", bytes.NewReader(rep.body))
	if err != nil {
		return 0, a, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+rep.Token)
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, a, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, a, err
	}
	if json.Unmarshal(b, &a) != nil {
		c.note(fmt.Sprintf("status %d, and the answer is not JSON", resp.StatusCode))
	}
	return resp.StatusCode, a, nil
}

func (c *Crowd) note(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wrong) < 10 {
		c.wrong = append(c.wrong, s)
	}
}

// NoWrongAnswers fails the test if a phone got an answer that it cannot act on,
// or none at all within the time that a server may let it wait.
func (c *Crowd) NoWrongAnswers() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wrong {
		c.t.Errorf("an answer that no phone may get: %s", w)
	}
	if n := c.Hung.Load(); n > 0 {
		c.t.Errorf("%d phones waited %s for an answer, in vain", n, tryLimit)
	}
}

// String says how the phones fared.
func (c *Crowd) String() string {
	return fmt.Sprintf("offered %d, acknowledged %d (+%d repeated); tries: refused %d, unknown %d, no answer %d",
		c.Offered.Load(), c.Acked.Load(), c.Repeated.Load(), c.Refused.Load(), c.Unknown.Load(), c.NoAnswer.Load())
}
