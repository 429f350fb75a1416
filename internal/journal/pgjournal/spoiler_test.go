package pgjournal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
)

// spoiler dials connections that break under an append, at the place where it
// matters: in front of the frame's bytes, or behind the server's answer.
type spoiler struct {
	mu            sync.Mutex
	before, after []error
}

func (s *spoiler) FailBefore(errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = append(s.before, errs...)
}

func (s *spoiler) FailAfter(errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = append(s.after, errs...)
}

func (s *spoiler) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &spoiled{Conn: c, s: s}, nil
}

func pop(errs *[]error) error {
	if len(*errs) == 0 {
		return nil
	}
	err := (*errs)[0]
	*errs = (*errs)[1:]
	return err
}

// spoiled is one such connection. It knows an append by the bytes of its frame.
type spoiled struct {
	net.Conn
	s *spoiler

	mu   sync.Mutex
	fail error // what the next read returns, once the server has answered
}

var errCut = errors.New("the test cut the connection")

// errEnded makes a session end as an administrator ends it, at the worst
// moment: when all is committed and nothing of the answer has been sent.
var errEnded = errors.New("the session was ended")

var ended = func() []byte {
	const fields = "SFATAL\x00VFATAL\x00C57P01\x00Mterminating connection due to administrator command\x00\x00"
	return append([]byte{'E', 0, 0, 0, byte(4 + len(fields))}, fields...)
}()

func (c *spoiled) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte("TGF1")) {
		return c.Conn.Write(b)
	}
	c.s.mu.Lock()
	before := pop(&c.s.before)
	var after error
	if before == nil {
		after = pop(&c.s.after)
	}
	c.s.mu.Unlock()
	if before != nil {
		_ = c.Conn.Close()
		return 0, fmt.Errorf("%w: %s", errCut, before.Error())
	}
	c.mu.Lock()
	c.fail = after
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *spoiled) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.fail != nil {
		// The server sends nothing before its commit is over.
		_ = c.Conn.Close()
		if errors.Is(c.fail, errEnded) {
			c.fail = errCut
			return copy(b, ended), nil
		}
		return 0, fmt.Errorf("%w: %s", errCut, c.fail.Error())
	}
	return n, err
}
