package server

import "testing"

// Whole is a server that is several processes, one for each role.
type Whole interface {
	KillAll()
	StopAll() error
	Output() string
}

// Of is a server of several processes that run already: it is used, killed and
// stopped like one of a single process. URL, Admin and RPC are the caller's to
// set. It does not end with the test by itself.
func Of(t testing.TB, w Whole, binary, data, config string) *Server {
	return &Server{t: t, Binary: binary, Data: data, Config: config, whole: w, ended: make(chan struct{})}
}

// end notes how a server of several processes ended.
func (s *Server) end(err error) {
	select {
	case <-s.ended:
	default:
		s.err = err
		close(s.ended)
	}
}

// Flags lead a command to the server's data.
func (s *Server) Flags() []string {
	if s.Config == "" {
		return []string{"--data", s.Data}
	}
	return []string{"--data", s.Data, "--config", s.Config}
}
