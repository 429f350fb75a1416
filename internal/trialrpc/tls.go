package trialrpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// identity is a certificate that is read again when a connection is made, so
// that a renewed file counts without a restart. While a new file cannot be
// used, the one before is.
type identity struct {
	certFile, keyFile string

	mu   sync.Mutex
	last *tls.Certificate
}

func (i *identity) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(i.certFile, i.keyFile)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err == nil {
		i.last = &pair
	}
	if i.last == nil {
		return nil, fmt.Errorf("rpcTLS: the certificate %s and the key %s cannot be used: %w", i.certFile, i.keyFile, err)
	}
	return i.last, nil
}

// mutual is the part of TLS that both sides share: an identity, and the
// authority that the other's must come from. With nothing set it is nil.
func (o *tlsFiles) mutual() (*tls.Config, error) {
	id := &identity{certFile: o.Cert, keyFile: o.Key}
	if _, err := id.load(); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Clean(o.CA))
	if err != nil {
		return nil, fmt.Errorf("rpcTLS.ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("rpcTLS.ca: " + o.CA + " holds no certificate in PEM")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, // both sides are Tidegate's
		RootCAs:    pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.load() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.load() },
	}, nil
}

// tlsFiles are the files of Settings.TLS.
type tlsFiles TLS
