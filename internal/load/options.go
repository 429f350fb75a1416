package load

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
)

// Options say what to send and how. A zero field means its default.
type Options struct {
	Target string     // base URL of the server, http or https. Required
	Keys   *auth.Keys // of the server's data folder: tokens are minted, receipts are checked against them. Required

	Trial  string        // T001
	Phones int           // 10,000; phone i is participant P-000001 + i
	First  int           // number of the first participant, 1
	Over   time.Duration // 60 s; every phone's first try is due within it
	Shape  Shape         // ShapeWave
	Seed   uint64        // of schedule, ids and bodies; 0: a fresh one, told in the summary

	Retry       bool          // try again as a phone does; otherwise one try each
	Grace       time.Duration // 2 min; how long after Over tries may begin
	Timeout     time.Duration // 20 s; of one try. Longer than a server lets a caller wait
	BackoffBase time.Duration // 500 ms; try n+1 follows try n after a random part of base·2ⁿ
	BackoffCap  time.Duration // 30 s; no back-off is longer, unless Retry-After asks for it

	Connections int    // 4,096; requests under way at once. A phone beyond waits, which counts as its latency
	TLSFresh    bool   // a new connection with a full TLS 1.3 handshake for each try
	InsecureTLS bool   // take any certificate
	CAFile      string // PEM of the authority that signed the server's certificate
	Bulk        int    // reports in one NDJSON request, sent with a relay's token; 0: each phone sends for itself

	// AcksFile gets one line for each acknowledgement, before anything says that
	// it was acknowledged. Lines are appended to what is there. Empty: none.
	AcksFile string
	// Progress is called about twice a second, from one goroutine. nil: it is not.
	Progress func(Progress)
}

// ErrOptions wraps everything that is wrong with [Options]: wrong use.
var ErrOptions = errors.New("load")

// maxBulk is the server's bound on the lines of one request.
const maxBulk = 10_000

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// complete fills in the defaults and says what is wrong.
func (o *Options) complete() error {
	setDefault(&o.Trial, "T001")
	setDefault(&o.Phones, 10_000)
	setDefault(&o.First, 1)
	setDefault(&o.Over, time.Minute)
	setDefault(&o.Shape, ShapeWave)
	setDefault(&o.Grace, 2*time.Minute)
	setDefault(&o.Timeout, 20*time.Second)
	setDefault(&o.BackoffBase, 500*time.Millisecond)
	setDefault(&o.BackoffCap, 30*time.Second)
	setDefault(&o.Connections, 4096)
	o.Target = strings.TrimRight(o.Target, "/")
	u, err := url.Parse(o.Target)
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...)
	}
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return wrong("the target must be a URL such as http://127.0.0.1:8080")
	case o.Keys == nil:
		return wrong("the keys of the server's data folder are needed, to make the phones' tokens")
	case o.Phones < 1 || o.Phones > 100_000_000 || o.First < 0:
		return wrong("the number of phones must be at least 1 and at most 100,000,000")
	case o.Over < 0 || o.Grace < 0 || o.Timeout < 0 || o.BackoffBase < 0 || o.BackoffCap < 0:
		return wrong("no time may be negative")
	case o.Connections < 1:
		return wrong("the number of connections must be at least 1")
	case o.Bulk < 0 || o.Bulk > maxBulk:
		return wrong("a request holds at most %d reports", maxBulk)
	case !o.Shape.valid():
		return wrong("the shape must be wave, uniform or burst")
	case o.TLSFresh && u.Scheme != "https":
		return wrong("fresh TLS connections need a target that begins with https://")
	}
	if err := epro.ValidID(o.Trial); err != nil {
		return wrong("the trial's id %w", err)
	}
	return nil
}

// transport is the phones' way to the server. Phones that share it share
// connections, which costs the server less than reality; TLSFresh costs it all.
func (o *Options) transport() (*http.Transport, error) {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: o.InsecureTLS, //nolint:gosec // asked for by name; the receipts are checked against the root key anyway
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate authority: %w", ErrOptions, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s holds no PEM certificate", ErrOptions, o.CAFile)
		}
	}
	// HTTP/1.1 only: under HTTP/2 thousands of phones would be one connection.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		TLSClientConfig:     cfg,
		Protocols:           &protocols,
		DisableKeepAlives:   o.TLSFresh,
		DisableCompression:  true,
		MaxIdleConns:        o.Connections,
		MaxIdleConnsPerHost: o.Connections,
		MaxConnsPerHost:     o.Connections,
		IdleConnTimeout:     30 * time.Second, // below the server's, so that it seldom closes first
		WriteBufferSize:     2 << 10,
		ReadBufferSize:      2 << 10,
	}, nil
}
