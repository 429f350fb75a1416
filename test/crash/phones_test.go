package crash_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
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

// phone is one device of one participant.
type phone struct{ patient, trial, token string }

// crowd are phones that make reports without end and send each one until it is
// acknowledged, with the same id and the same bytes, as a phone must. It shares
// no code with the product.
type crowd struct {
	t      testing.TB
	phones []phone
	client *http.Client
	acks   *os.File
	url    atomic.Pointer[string] // nil: there is no server now
	ended  atomic.Bool            // no new reports
	gaveUp atomic.Bool            // not even old ones
	work   sync.WaitGroup

	wire sync.RWMutex // held to read while an acknowledgement is taken in
	cuts int          // how often the wire was cut; guarded by wire

	offered, acked, repeated   atomic.Int64 // reports begun, acknowledged, acknowledged once more
	refused, unknown, noAnswer atomic.Int64 // tries

	mu    sync.Mutex
	took  []time.Duration // of acknowledged tries
	wrong []string        // answers that no phone may get
}

// newCrowd opens the file of acknowledgements; start sets the phones going.
func newCrowd(t testing.TB, acks string, phones []phone) *crowd {
	t.Helper()
	f, err := os.OpenFile(acks, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{t: t, phones: phones, acks: f, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
		Timeout:   20 * time.Second,
	}}
	t.Cleanup(func() {
		c.gaveUp.Store(true)
		c.finish()
		_ = f.Close()
	})
	return c
}

// at tells the phones where the server is; "" when there is none.
func (c *crowd) at(url string) {
	if url == "" {
		c.url.Store(nil)
	} else {
		c.url.Store(&url)
	}
	c.client.CloseIdleConnections()
}

// cut takes the server's network away: an answer that has not arrived by now
// never does. Power cuts need it, because they cannot be made in one instant: a
// sync that is under way while a file system is forced down may still return
// success and be forgotten (a loop of write and fdatasync shows it on ext4 and
// xfs), and with a real power cut nobody hears of that success.
func (c *crowd) cut() {
	c.wire.Lock()
	defer c.wire.Unlock()
	c.cuts++
	c.url.Store(nil)
}

// start sets more phones going.
func (c *crowd) start(phones int) {
	for i := range phones {
		c.work.Go(func() {
			r := mathrand.New(mathrand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
			for !c.ended.Load() {
				c.one(r, c.phones[r.IntN(len(c.phones))])
			}
		})
	}
}

// finish makes no new reports and waits until those in hand are acknowledged.
func (c *crowd) finish() {
	c.ended.Store(true)
	c.work.Wait()
}

// settle is finish with a limit, for a server that is expected to answer.
func (c *crowd) settle(limit time.Duration) {
	c.t.Helper()
	timer := time.AfterFunc(limit, func() { c.gaveUp.Store(true) })
	c.finish()
	timer.Stop()
	if c.acked.Load() != c.offered.Load() {
		c.t.Errorf("%d of %d reports are not acknowledged after %s", c.offered.Load()-c.acked.Load(), c.offered.Load(), limit)
	}
}

// report is what a phone made and keeps until it is acknowledged.
type report struct {
	phone
	id   string
	body []byte
	ack  []byte // the line for the acks file, up to the receipt
}

func (c *crowd) report(r *mathrand.Rand, p phone) report {
	var u [16]byte
	_, _ = rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	body := fmt.Appendf(nil, `{"patientId":%q,"trialId":%q,"reportId":%q,"timestamp":%q,"qolScore":%d,"comments":%q}`,
		p.patient, p.trial, id, time.Now().UTC().Format(time.RFC3339Nano), r.IntN(11), words(r))
	sum := sha256.Sum256(body)
	return report{p, id, body, fmt.Appendf(nil, `{"reportId":%q,"patientId":%q,"trialId":%q,"sha256":"%x","receipt":`, id, p.patient, p.trial, sum)}
}

// words are a few, and from one phone in four a long story: so the journal's
// -wal is folded into its file every few moments, and kills meet that too.
func words(r *mathrand.Rand) string {
	n := r.IntN(4)
	if r.IntN(4) == 0 {
		n = r.IntN(300)
	}
	return "Slept well. " + strings.Repeat("Woke twice. ", n)
}

// one makes a report and sends it until it is acknowledged. Now and then the
// phone goes away before the answer, or does not believe it and asks again.
func (c *crowd) one(r *mathrand.Rand, p phone) {
	rep := c.report(r, p)
	c.offered.Add(1)
	for try := 0; !c.gaveUp.Load(); try++ {
		limit := 20 * time.Second
		if try == 0 && r.IntN(16) == 0 {
			limit = time.Duration(r.IntN(5000)) * time.Microsecond
		}
		ok, pause := c.try(&rep, limit)
		if ok {
			c.acked.Add(1)
			break
		}
		time.Sleep(pause/2 + time.Duration(r.Int64N(int64(pause))))
	}
	if r.IntN(16) == 0 && !c.gaveUp.Load() {
		if ok, _ := c.try(&rep, 20*time.Second); ok {
			c.repeated.Add(1)
		}
	}
}

// answer is what a phone reads.
type answer struct {
	ReportID string `json:"reportId"`
	Receipt  string `json:"receipt"`
	Accepted any    `json:"accepted"`
}

// try sends a report once; the line of an acknowledgement is written before
// anything else believes it.
func (c *crowd) try(rep *report, limit time.Duration) (acked bool, pause time.Duration) {
	const short = 20 * time.Millisecond
	c.wire.RLock()
	url, cuts := c.url.Load(), c.cuts
	c.wire.RUnlock()
	if url == nil {
		return false, short
	}
	status, a, took, err := c.post(*url, rep, limit)
	switch {
	case err != nil:
		c.noAnswer.Add(1)
		return false, short
	case status == http.StatusOK && a.ReportID == rep.id && a.Receipt != "":
		line := fmt.Appendf(slices.Clip(rep.ack), "%q}\n", a.Receipt)
		c.wire.RLock()
		defer c.wire.RUnlock()
		if c.cuts != cuts {
			c.noAnswer.Add(1)
			return false, short
		}
		if _, err := c.acks.Write(line); err != nil {
			c.note("write an acknowledgement: " + err.Error())
			return false, short
		}
		c.mu.Lock()
		c.took = append(c.took, took)
		c.mu.Unlock()
		return true, 0
	case status == http.StatusServiceUnavailable && a.Accepted == false:
		c.refused.Add(1)
		return false, 100 * time.Millisecond
	case status == http.StatusServiceUnavailable && a.Accepted == "unknown":
		c.unknown.Add(1)
		return false, 100 * time.Millisecond
	}
	c.note(fmt.Sprintf("status %d, reportId %q, accepted %v", status, a.ReportID, a.Accepted))
	return false, 100 * time.Millisecond
}

func (c *crowd) post(url string, rep *report, limit time.Duration) (status int, a answer, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/patient/report", bytes.NewReader(rep.body))
	if err != nil {
		return 0, a, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+rep.token)
	start := time.Now()
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, a, 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, a, 0, err
	}
	if json.Unmarshal(b, &a) != nil {
		c.note(fmt.Sprintf("status %d, and the answer is not JSON", resp.StatusCode))
	}
	return resp.StatusCode, a, time.Since(start), nil
}

func (c *crowd) note(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wrong) < 10 {
		c.wrong = append(c.wrong, s)
	}
}

// noWrongAnswers fails the test if a phone got an answer that it cannot act on.
func (c *crowd) noWrongAnswers() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wrong {
		c.t.Errorf("an answer that no phone may get: %s", w)
	}
}

// quantile is the latency below which the share q of acknowledged tries lies,
// since the last call of forget.
func (c *crowd) quantile(q float64) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.took) == 0 {
		return 0
	}
	slices.Sort(c.took)
	return c.took[int(q*float64(len(c.took)-1))]
}

// forget begins the latencies anew.
func (c *crowd) forget() {
	c.mu.Lock()
	c.took = nil
	c.mu.Unlock()
}

// String says how the phones fared.
func (c *crowd) String() string {
	return fmt.Sprintf("offered %d, acknowledged %d (+%d repeated); tries: refused %d, unknown %d, no answer %d",
		c.offered.Load(), c.acked.Load(), c.repeated.Load(), c.refused.Load(), c.unknown.Load(), c.noAnswer.Load())
}
