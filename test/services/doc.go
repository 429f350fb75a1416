// Package services gives tests the real servers of the second shape: private
// PostgreSQL and etcd processes on loopback ports in temporary folders, and a
// proxy that breaks the network between a client and a server. Everything ends
// with the test, also when it fails.
//
// A server that is not installed skips the test with a sentence; under
// TIDEGATE_LONG=1, which promises everything, it fails it instead.
// test/services/install.sh installs what is missing.
package services

import (
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/test/services/run"
)

// long says whether everything was promised to be here.
func long() bool { return os.Getenv("TIDEGATE_LONG") == "1" }

// missing ends the test for a server that is not installed.
func missing(t testing.TB, err error) {
	t.Helper()
	if long() {
		t.Fatalf("%v: TIDEGATE_LONG=1 wants it", err)
	}
	t.Skipf("not shown here: %v", err)
}

// folder is a new folder that another user can reach, unlike t.TempDir.
func folder(t testing.TB, pattern string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", pattern) //nolint:usetesting // PostgreSQL runs as another user, who cannot enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// FreePort is a free loopback port for a server that will be stopped and
// started again.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := run.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Main runs the tests of a package, stops what they shared, and exits. It is
// for TestMain of packages that use [SharedPostgres] or [SharedEtcd]:
//
//	func TestMain(m *testing.M) { services.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	CleanUp()
	os.Exit(code)
}

var (
	sharedMu   sync.Mutex
	sharedPG   *run.Postgres
	sharedErr  error // of the start of sharedPG
	sharedEtcd *run.Etcd
	sharedDirs []string
)

// CleanUp stops what the tests of this binary shared; for a TestMain that does
// more than [Main].
func CleanUp() {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if sharedPG != nil {
		_ = sharedPG.Discard()
		sharedPG, sharedErr = nil, errors.New("the shared PostgreSQL was cleaned up already")
	}
	if sharedEtcd != nil {
		_ = sharedEtcd.Kill()
		sharedEtcd = nil
	}
	for _, dir := range sharedDirs {
		_ = os.RemoveAll(dir)
	}
}

// Missing ends the test when PostgreSQL or etcd is not installed; for tests
// that start them by other means.
func Missing(t testing.TB) {
	t.Helper()
	if _, err := run.PostgresBinaries(); err != nil {
		missing(t, err)
	}
	etcdBinary(t)
}
