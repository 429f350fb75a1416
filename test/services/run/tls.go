package run

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
)

// clientTLS is how the tests' own client proves itself to an etcd with TLS.
func clientTLS(cfg EtcdConfig) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(cfg.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + cfg.CA)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
