package trialrpc

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"github.com/zeromicro/go-zero/core/breaker"
	"github.com/zeromicro/go-zero/zrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	trialv1 "github.com/tidegate/tidegate/api/trial/v1"
	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/edge"
	"github.com/tidegate/tidegate/internal/trialrpc/internal/wire"
)

// serviceConfig balances by go-zero's p2c, and sends a call again that got no
// answer, at most twice and not while the service fails as a whole. Any call
// may be: reads change nothing, and a command is known by its id.
const serviceConfig = `{
	"loadBalancingPolicy": "p2c_ewma",
	"methodConfig": [{
		"name": [{"service": "trial.Trial"}],
		"retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 3, "retryableStatusCodes": ["UNAVAILABLE"]}
	}],
	"retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2}
}`

// silence is how long a directory's stream may say nothing. The other side
// gives a sign of life every few seconds.
const silence = 30 * time.Second

// Client calls the Trial service. It is a [directory.Source], and safe for
// concurrent use. A service that fails is left alone for a while (go-zero's
// breaker): calls then end at once with Unavailable.
type Client struct {
	conn    *grpc.ClientConn
	service trialv1.TrialClient
	finder  *finder
	tracer  trace.Tracer
	metrics callMetrics
	silence time.Duration // see there
}

var _ directory.Source = (*Client)(nil)

// clients counts clients: a breaker is known by its name in the whole process,
// and two clients must not share one.
var clients atomic.Uint64

// NewClient makes a client. Neither etcd nor the service needs to be there yet.
func NewClient(o ClientOptions) (*Client, error) {
	if err := o.Settings.CheckClient(); err != nil {
		return nil, err
	}
	if err := checkEtcd(o.Settings.Etcd); err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if o.Settings.TLS.On() {
		files := tlsFiles(o.Settings.TLS)
		cfg, err := files.mutual()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(cfg)
	}
	logs.log.Store(o.Log)
	c := &Client{
		finder: &finder{settings: o.Settings, log: o.Log}, tracer: tracerOf(o.Tracing),
		metrics: newCallMetrics(o.Metrics, "tidegate_rpc_client", "made here"),
		silence: silence,
	}
	z, err := zrpc.NewClient(
		o.Settings.Client(fmt.Sprintf("%s:///trial-%d", scheme, clients.Add(1))),
		zrpc.WithTransportCredentials(creds),
		zrpc.WithDialOption(grpc.WithResolvers(c.finder)),
		zrpc.WithDialOption(grpc.WithDefaultServiceConfig(serviceConfig)),
		zrpc.WithDialOption(grpc.WithDisableServiceConfig()),
		zrpc.WithDialOption(grpc.WithUnaryInterceptor(c.unary)), // outside go-zero's
		// An instance that stands still is left after 15 s; until then the balancer sends it little.
		zrpc.WithDialOption(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true})),
	)
	if err != nil {
		return nil, fmt.Errorf("client of the Trial service: %w", err)
	}
	c.conn = z.Conn()
	c.service = trialv1.NewTrialClient(c.conn)
	return c, nil
}

// unary traces and counts a call, and gives the breaker's refusal a status.
func (c *Client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	began := time.Now()
	ctx, span := startSpan(ctx, c.tracer, method, trace.SpanKindClient)
	err := invoke(inject(ctx), method, req, reply, cc, opts...)
	if errors.Is(err, breaker.ErrServiceUnavailable) {
		err = (&edge.Error{
			Code: codes.Unavailable, Reason: "breaker-open", RetryAfter: time.Second,
			Text: "The Trial service failed too often a moment ago and is left alone for a while.",
		}).GRPCStatus().Err()
	}
	c.metrics.observe(path.Base(method), status.Code(err), began)
	endSpan(span, status.Code(err))
	return err
}

// Service are all methods of the contract. A method for staff needs a token:
// see [WithToken].
func (c *Client) Service() trialv1.TrialClient { return c.service }

// PatientTrial is a trial a participant is enrolled in.
type PatientTrial struct{ ID, Name, Status string }

// PatientTrials are the trials a participant is enrolled in; none for one whom
// nobody knows.
func (c *Client) PatientTrials(ctx context.Context, patient string) ([]PatientTrial, error) {
	r, err := c.service.GetPatientTrials(ctx, &trialv1.GetPatientTrialsRequest{PatientId: patient})
	if err != nil {
		return nil, fmt.Errorf("ask the Trial service: %w", err)
	}
	return wire.Each(r.GetTrials(), func(t **trialv1.TrialInfo) PatientTrial {
		return PatientTrial{(*t).GetTrialId(), (*t).GetTrialName(), (*t).GetStatus()}
	}), nil
}

var errSilent = errors.New("follow the directory: the service says nothing any more")

// Follow implements [directory.Source].
func (c *Client) Follow(ctx context.Context, from directory.Version, fn func(directory.Change) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, span := startSpan(ctx, c.tracer, trialv1.Trial_WatchDirectory_FullMethodName, trace.SpanKindClient)
	stream, err := c.service.WatchDirectory(inject(ctx), &trialv1.WatchDirectoryRequest{Version: from})
	endSpan(span, status.Code(err)) // of the opening: a directory is followed for weeks
	if err != nil {
		return fmt.Errorf("follow the directory: %w", err)
	}
	watchdog := time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	for {
		m, err := stream.Recv()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return fmt.Errorf("follow the directory: %w", err)
		}
		watchdog.Stop()
		if err := fn(wire.ChangeOf(m)); err != nil {
			return err
		}
		watchdog.Reset(c.silence)
	}
}

// ClientState is what /status says of a client.
type ClientState struct {
	Connected bool
	Instances []string // last known
	Err       error    // why they may be old, or none
}

// State says how the client is.
func (c *Client) State() ClientState {
	instances, err := c.finder.state()
	return ClientState{Connected: c.conn.GetState() == connectivity.Ready, Instances: instances, Err: err}
}

// Close ends every call and every stream.
func (c *Client) Close() error { return c.conn.Close() }

// token is a staff token that goes with a call.
type token string

// WithToken makes a call that of the staff member whose token it is.
func WithToken(text string) grpc.CallOption { return grpc.PerRPCCredentials(token(text)) }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Plain text
// is refused elsewhere, but over loopback.
func (t token) RequireTransportSecurity() bool { return false }
