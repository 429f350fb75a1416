package run

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// etcdModule is where etcd's main package is.
const etcdModule = "go.etcd.io/etcd/server/v3"

// EtcdBinary is the path of the etcd that tools/etcd builds, a [MissingError]
// when it is not built or of another version than tools/etcd/go.mod names. With
// build it is built then, which takes a minute and may fetch modules; processes
// that want it at once wait for the one that builds.
func EtcdBinary(build bool) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "tools", "etcd")
	if etcdCurrent(root, path) {
		return path, nil
	}
	if !build {
		return "", &MissingError{"etcd"}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() //nolint:errcheck // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("wait for another build of etcd: %w", err)
	}
	if etcdCurrent(root, path) {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute)
	defer cancel()
	// Under another name first: a binary that is being written must not be run.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path+".new", etcdModule)
	cmd.Dir = filepath.Join(root, "tools", "etcd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build etcd from tools/etcd: %w\n%s", err, bytes.TrimSpace(out))
	}
	return path, os.Rename(path+".new", path)
}

// etcdCurrent says whether the binary is the one that go.mod asks for.
func etcdCurrent(root, path string) bool {
	info, err := buildinfo.ReadFile(path)
	if err != nil || info.Main.Path != etcdModule {
		return false
	}
	mod, err := os.ReadFile(filepath.Join(root, "tools", "etcd", "go.mod"))
	if err != nil {
		return false
	}
	m := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(etcdModule) + ` (v\S+)`).FindSubmatch(mod)
	return m != nil && string(m[1]) == info.Main.Version
}

// EtcdConfig says how a private etcd is made.
type EtcdConfig struct {
	Dir    string // its folder; one that is there already is used as it is
	Port   int    // for clients, on 127.0.0.1; 0: a free one
	Binary string // from [EtcdBinary]
	// Cert, Key and CA make it serve TLS, and ask clients for a certificate of CA.
	Cert, Key, CA string
}

// Etcd is a private etcd of one member on a loopback port.
type Etcd struct {
	*process
	cfg EtcdConfig
}

// NewEtcd starts one and returns when it answers.
func NewEtcd(cfg EtcdConfig) (*Etcd, error) {
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if cfg.Port == 0 {
		if cfg.Port, err = FreePort(); err != nil {
			return nil, err
		}
	}
	peer, err := FreePort()
	if err != nil {
		return nil, err
	}
	e := &Etcd{cfg: cfg}
	peers := fmt.Sprintf("http://127.0.0.1:%d", peer)
	args := []string{
		"--data-dir", filepath.Join(cfg.Dir, "data"), "--name", "default", "--log-level", "warn",
		"--listen-client-urls", e.Endpoint(), "--advertise-client-urls", e.Endpoint(),
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default=" + peers,
		// One member waits for no other: an election need not take a second.
		"--heartbeat-interval", "50", "--election-timeout", "500",
	}
	if cfg.Cert != "" {
		args = append(args, "--cert-file", cfg.Cert, "--key-file", cfg.Key, "--trusted-ca-file", cfg.CA, "--client-cert-auth")
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "ETCD") })
	e.process = &process{name: "etcd", path: cfg.Binary, args: args, env: env, log: filepath.Join(cfg.Dir, "log"), orphan: syscall.SIGKILL}
	return e, e.Start()
}

// Endpoint is its address, with the scheme.
func (e *Etcd) Endpoint() string { return e.scheme() + "://" + e.Addr() }

func (e *Etcd) scheme() string {
	if e.cfg.Cert != "" {
		return "https"
	}
	return "http"
}

// Addr is host and port.
func (e *Etcd) Addr() string { return fmt.Sprintf("127.0.0.1:%d", e.cfg.Port) }

// Client connects to it as the tests' own client; TLS with the certificate of
// the server itself.
func (e *Etcd) Client(ctx context.Context) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints: []string{e.Endpoint()}, DialTimeout: 5 * time.Second, Context: ctx,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second})},
		Logger:      zap.NewNop(), // errors come back to the test
	}
	if e.cfg.Cert != "" {
		tls, err := clientTLS(e.cfg)
		if err != nil {
			return nil, err
		}
		cfg.TLS = tls
	}
	return clientv3.New(cfg)
}

// Start starts it again and returns when it answers.
func (e *Etcd) Start() error {
	if err := e.start(); err != nil {
		return err
	}
	client, err := e.Client(context.Background())
	if err != nil {
		return err
	}
	return errors.Join(e.waitFor(startLimit, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		// A read that the cluster agrees on, of a key that nobody has. With users it
		// is refused, and that is an answer too.
		_, err := client.Get(ctx, "\x00")
		if err != nil && strings.Contains(err.Error(), "user name is empty") {
			return nil
		}
		return err
	}), client.Close())
}

// Stop stops it as an operator does.
func (e *Etcd) Stop() error { return e.stop(syscall.SIGTERM, startLimit) }

// Kill ends it with SIGKILL.
func (e *Etcd) Kill() error { return e.kill() }

// Freeze stops it where it is; Thaw lets it go on.
func (e *Etcd) Freeze() error { return e.freeze() }

// Thaw lets a frozen etcd go on.
func (e *Etcd) Thaw() error { return e.thaw() }

// LogFile is where it writes its log.
func (e *Etcd) LogFile() string { return e.log }
