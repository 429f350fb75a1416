package gateway

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// cappedListener closes connections over its limit at once, unanswered: a
// connection that waits to be accepted costs the client nothing and tells it
// nothing, one that is closed makes it back off. It knows those that are open.
type cappedListener struct {
	net.Listener
	limit int
	gauge prometheus.Gauge
	over  prometheus.Counter

	mu   sync.Mutex
	open map[*cappedConn]struct{}
}

// Accept implements net.Listener.
func (l *cappedListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &cappedConn{Conn: raw, listener: l}
		if !l.enter(c) {
			l.over.Inc()
			_ = raw.Close() // it was never used
			continue
		}
		l.gauge.Inc()
		return c, nil
	}
}

func (l *cappedListener) enter(c *cappedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.limit {
		return false
	}
	l.open[c] = struct{}{}
	return true
}

func (l *cappedListener) leave(c *cappedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[c]; ok {
		delete(l.open, c)
		l.gauge.Dec()
	}
}

// hurry ends every read under way: bodies that are still being sent are
// answered as too slow, connections that say nothing are closed.
func (l *cappedListener) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		_ = c.SetReadDeadline(time.Now()) // a closed one needs none
	}
}

// cappedConn gives its place back when it is closed, and its handshake's place
// when the costly part of that is over.
type cappedConn struct {
	net.Conn
	listener *cappedListener
	// handshake is the semaphore of which the connection holds a place.
	handshake atomic.Pointer[chan struct{}]
}

// Close implements net.Conn.
func (c *cappedConn) Close() error {
	c.listener.leave(c)
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
