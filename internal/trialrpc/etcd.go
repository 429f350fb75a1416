package trialrpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdAnswer is how long one request to etcd may take.
const etcdAnswer = 3 * time.Second

// newEtcd makes a client of etcd. It does not need etcd to be there, unless a
// user is set: then it logs in.
func newEtcd(e Etcd) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints: e.Endpoints, DialTimeout: e.DialTimeout, Username: e.User,
		// Without these a frozen etcd would hold a watch for ever.
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second, PermitWithoutStream: true,
		Logger: zap.NewNop(), // what is worth saying is said here, once for each change
	}
	if e.PasswordFile != "" {
		text, err := os.ReadFile(filepath.Clean(e.PasswordFile))
		if err != nil {
			return nil, fmt.Errorf("etcd.passwordFile: %w", err)
		}
		cfg.Password = strings.TrimSpace(string(text))
	}
	if e.CA != "" || e.Cert != "" {
		tlsConfig, err := etcdTLS(e)
		if err != nil {
			return nil, err
		}
		cfg.TLS = tlsConfig
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd %s: %w", strings.Join(e.Endpoints, ", "), err)
	}
	return c, nil
}

func etcdTLS(e Etcd) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CA != "" {
		pem, err := os.ReadFile(filepath.Clean(e.CA))
		if err != nil {
			return nil, fmt.Errorf("etcd.ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("etcd.ca: " + e.CA + " holds no certificate in PEM")
		}
	}
	if e.Cert != "" {
		pair, err := tls.LoadX509KeyPair(e.Cert, e.CertKey)
		if err != nil {
			return nil, fmt.Errorf("etcd.cert: the certificate %s and the key %s cannot be used: %w", e.Cert, e.CertKey, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// checkEtcd says what is wrong with the files, before anything is started.
func checkEtcd(e Etcd) error {
	if len(e.Endpoints) == 0 {
		return nil
	}
	if e.PasswordFile != "" {
		if _, err := os.Stat(e.PasswordFile); err != nil {
			return fmt.Errorf("etcd.passwordFile: %w", err)
		}
	}
	_, err := etcdTLS(e)
	return err
}

// pause waits about d, so that not everybody comes back to etcd at once, or
// until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d/2 + time.Duration(rand.Int64N(int64(d)))) //nolint:gosec // jitter needs no secrecy
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// retryEtcd is the time between two tries while etcd is away.
const retryEtcd = time.Second
