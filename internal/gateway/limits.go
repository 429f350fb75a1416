package gateway

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// cappedListener closes connections over its limit at once, unanswered: a
// connection that waits to be accepted costs the client nothing and tells it
// nothing, one that is closed makes it back off.
type cappedListener struct {
	net.Listener
	limit int64
	open  atomic.Int64
	gauge prometheus.Gauge
	over  prometheus.Counter
}

// Accept implements net.Listener.
func (l *cappedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) > l.limit {
			l.open.Add(-1)
			l.over.Inc()
			_ = c.Close() // it was never used
			continue
		}
		l.gauge.Inc()
		return &cappedConn{Conn: c, listener: l}, nil
	}
}

// cappedConn gives its place back when it is closed, and its handshake's place
// when the costly part of that is over.
type cappedConn struct {
	net.Conn
	listener *cappedListener
	closed   sync.Once
	// handshake is the semaphore of which the connection holds a place.
	handshake atomic.Pointer[chan struct{}]
}

// Close implements net.Conn.
func (c *cappedConn) Close() error {
	c.closed.Do(func() {
		c.listener.open.Add(-1)
		c.listener.gauge.Dec()
	})
	c.leaveHandshake()
	return c.Conn.Close()
}

// Write ends the costly part of a handshake: the server's first flight is
// written when the key exchange and the signature have been computed.
func (c *cappedConn) Write(b []byte) (int, error) {
	c.leaveHandshake()
	return c.Conn.Write(b)
}

func (c *cappedConn) leaveHandshake() {
	if c.handshake.Load() == nil {
		return
	}
	if places := c.handshake.Swap(nil); places != nil {
		<-*places
	}
}

var errHandshakes = errors.New("too many TLS handshakes are under way")

// capHandshakes makes each handshake wait, after its client's first message,
// for one of n places. So clients that connect and say nothing hold none.
func (s *Server) capHandshakes(cfg *tls.Config, n int) {
	places := make(chan struct{}, n)
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, ok := hello.Conn.(*cappedConn)
		if !ok {
			return nil, nil //nolint:nilnil // the callback's way of saying: as configured
		}
		select {
		case places <- struct{}{}:
			c.handshake.Store(&places)
			if hello.Context().Err() != nil {
				c.leaveHandshake() // closed meanwhile: nobody else would
			}
			return nil, nil //nolint:nilnil // as above
		case <-hello.Context().Done():
			s.metrics.handshakesFailed.Inc()
			return nil, errHandshakes
		}
	}
}

// CloseWrite lets net/http end a connection softly: an answer given before the
// body was read, such as a 413, would otherwise be lost to a reset.
func (c *cappedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
