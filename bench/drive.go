package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/load"
)

const (
	reportPath   = "/v1/patient/report"
	trial        = "T001"
	participants = 10_000
)

func patientID(i int) string { return fmt.Sprintf("P-%06d", i%participants+1) }

// tokens are the participants' own, made once.
func tokens(keys *auth.Keys) ([]string, error) {
	out := make([]string, participants)
	for i := range out {
		var err error
		if out[i], err = keys.Mint(auth.Claims{
			Kind: auth.KindParticipant, Scope: auth.ScopeSubmit, Trial: trial, Participant: patientID(i), Device: "bench", Epoch: 1,
			Expires: time.Now().Add(24 * time.Hour),
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// buildRequests makes n requests, whole and ready to be written, each with a
// report id never used before.
func buildRequests(n int, tokens []string) [][]byte {
	out := make([][]byte, n)
	now := time.Now().UTC().Format(time.RFC3339)
	for i := range out {
		body := fmt.Sprintf(`{"patientId":"%s","trialId":"%s","reportId":"%s","timestamp":"%s","qolScore":%d,"comments":"Slept well, less pain than yesterday."}`,
			patientID(i), trial, epro.NewUUID(), now, i%10+1)
		out[i] = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nUser-Agent: phone/1.0\r\nAccept: application/json\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			reportPath, tokens[i%participants], len(body), body)
	}
	return out
}

// driven is what a closed loop saw.
type driven struct {
	acked   int
	took    time.Duration
	latency load.Histogram // of this closed loop: not what a patient would see, see the wave
	other   map[string]int // answers that are no 200, by status
}

// drive sends the requests over n connections, each with one under way, and
// reads each answer to its end. It is cheap on purpose: no HTTP library.
func drive(ctx context.Context, address string, requests [][]byte, n int) (*driven, error) {
	d := &driven{other: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, n)
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		defer c.Close() //nolint:revive // all of them live until the end
		conns[i] = c
	}
	start := time.Now()
	for i := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var h load.Histogram
			acked, other := 0, map[string]int{}
			in := bufio.NewReaderSize(conns[i], 16<<10)
			for j := i; j < len(requests) && ctx.Err() == nil; j += n {
				began := time.Now()
				if _, errs[i] = conns[i].Write(requests[j]); errs[i] != nil {
					break
				}
				status, err := readAnswer(in)
				if err != nil {
					errs[i] = err
					break
				}
				h.Record(time.Since(began))
				if status == "200" {
					acked++
				} else {
					other[status]++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			d.acked += acked
			d.latency.Add(&h)
			for s, k := range other {
				d.other[s] += k
			}
		}()
	}
	wg.Wait()
	d.took = time.Since(start)
	return d, errors.Join(errors.Join(errs...), ctx.Err())
}

// readAnswer reads one answer and returns its status. Every server here says a
// length, because the answers are short.
func readAnswer(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(line) < 12 {
		return "", errors.New("not an HTTP answer")
	}
	status, length := string(line[9:12]), -1
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return "", err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if name, value, _ := strings.Cut(string(line), ":"); strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return "", err
			}
		}
	}
	if length < 0 {
		return "", errors.New("an answer without a length")
	}
	_, err = in.Discard(length)
	return status, err
}
