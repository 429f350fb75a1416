package trialrpc

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zeromicro/go-zero/core/load"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/proc"
	"github.com/zeromicro/go-zero/core/stat"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"
)

// never is longer than any process runs.
const never = 100 * 365 * 24 * time.Hour

// go-zero acts from its import on, in every command of the binary, so it is
// tamed at ours.
func init() { tame() }

// tame takes the process back from go-zero.
//
// Its signal handler, which nothing can take out, would stop servers one second
// after the first SIGTERM or SIGINT and 5.5 s after it signal the process again.
// A stop has its own order here and may take longer, and a second signal means
// "at once": so both are put off for ever. Its own handler is then gone for the
// second signal.
//
// Its log is set up once in a process; that one time is used up here, so that
// no later SetUp puts standard output back.
func tame() {
	_ = logx.SetUp(logx.LogConf{Mode: "console", Encoding: "json", Level: "info"}) // the console needs nothing, so cannot fail
	logx.SetWriter(&logs)
	logx.DisableStat()
	load.DisableLog()
	stat.DisableLog()
	proc.Setup(proc.ShutdownConf{WrapUpTime: never, WaitTime: 2 * never})
}

// host starts and stops zRPC servers. RpcServer.Stop stops nothing, and Start
// returns only after go-zero's process-wide shutdown, so the *grpc.Server is
// taken out when go-zero hands it over, and stopped directly; when the last one
// of the process has stopped, the process-wide shutdown releases every Start.
type host struct {
	mu      sync.Mutex
	live    []*hosted
	stopped []*hosted // whose Start has not returned
}

var servers host

// hosted is one zRPC server.
type hosted struct {
	grpc  *grpc.Server
	ended chan struct{} // closed when Start has returned
	err   error         // why, valid after ended
}

// start listens and serves. register is given the server before it serves.
func (h *host) start(conf zrpc.RpcServerConf, options []grpc.ServerOption, register func(*grpc.Server)) (*hosted, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &hosted{ended: make(chan struct{})}
	registered := make(chan *grpc.Server, 1)
	z, err := zrpc.NewServer(conf, func(g *grpc.Server) {
		register(g)
		registered <- g
	})
	if err != nil {
		return nil, fmt.Errorf("trial service: %w", err)
	}
	z.AddOptions(options...)
	go s.run(z)
	select {
	case s.grpc = <-registered:
		h.live = append(h.live, s)
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("trial service: %w", s.err)
	}
}

// run is Start, which tells of a port in use by a panic.
func (s *hosted) run(z *zrpc.RpcServer) {
	defer close(s.ended)
	defer func() {
		if err, is := recover().(error); is {
			s.err = err
		}
	}()
	s.err = errors.New("go-zero stopped the server by itself")
	z.Start()
}

// release forgets a server whose grpc.Server has stopped.
func (h *host) release(s *hosted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.live = slices.DeleteFunc(h.live, func(l *hosted) bool { return l == s })
	h.stopped = append(h.stopped, s)
	if len(h.live) > 0 {
		return // go-zero's shutdown would stop those too
	}
	// A Start that was stopped at once may be on its way to wait for the shutdown
	// only now: so it is repeated until all have returned.
	for _, s := range h.stopped {
		for released := false; !released; {
			proc.Shutdown()
			select {
			case <-s.ended:
				released = true
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	h.stopped = nil
}
