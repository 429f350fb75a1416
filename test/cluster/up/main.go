// Up brings the second shape up on this machine: etcd, PostgreSQL with a
// synchronous standby, two gateways, two Trial services and two projectors, each
// a process of its own, on a folder that is kept. `make cluster` runs it.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/test/cluster"
	"github.com/tidegate/tidegate/test/services/run"
)

// defaultDir is beside the folder of `make run`.
var defaultDir = filepath.Join("data", "cluster")

func main() {
	var u up
	flag.StringVar(&u.dir, "data", defaultDir, "folder, kept: run it again and it goes on where it was")
	flag.IntVar(&u.port, "port", 8080, "port of the first gateway; the others lie within 50 above it")
	flag.IntVar(&u.participants, "participants", 10_000, "participants of the demo registry")
	flag.StringVar(&u.binary, "tidegate", filepath.Join("bin", "tidegate"), "the binary to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := u.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// up is one run of the program.
type up struct {
	dir, binary        string
	port, participants int

	postgres, standby *run.Postgres
	etcd              *run.Etcd
	cluster           *cluster.Cluster
}

func (u *up) run(ctx context.Context) (err error) {
	if u.dir, err = filepath.Abs(u.dir); err != nil {
		return err
	}
	if u.binary, err = filepath.Abs(u.binary); err != nil {
		return err
	}
	if _, err := run.PostgresBinaries(); err != nil {
		return fmt.Errorf("%w; `make run` needs no PostgreSQL", err)
	}
	if err := u.makeDir(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.stop()) }()
	for _, step := range []func(context.Context) error{u.startEtcd, u.startPostgres, u.startRoles, u.seed} {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	if err := u.print(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			fmt.Println("\nstopping …")
			return nil
		case <-time.After(time.Second):
			u.restart()
		}
	}
}

// makeDir makes the folder. PostgreSQL passes through as another user when we are
// root; what is secret lies in files and folders of its own, which nobody else
// may read.
func (u *up) makeDir() error {
	if info, err := os.Stat(u.dir); err == nil && !info.IsDir() {
		return fmt.Errorf("-data: %s is a file, and a folder is wanted: name another, or one that is not there yet", u.dir)
	}
	if err := os.MkdirAll(u.dir, 0o711); err != nil { //nolint:gosec // see above
		return err
	}
	parent := filepath.Dir(u.dir)
	info, err := os.Stat(parent)
	if err != nil || os.Geteuid() != 0 || filepath.Base(parent) != filepath.Dir(defaultDir) {
		return err
	}
	return os.Chmod(parent, info.Mode().Perm()|0o011) //nolint:gosec // made by `make run`, perhaps for us alone
}

// say prints what is being done, with how long the last step took.
func say(format string, args ...any) { fmt.Printf("cluster: "+format+"\n", args...) }

// startEtcd builds etcd if need be, and starts it.
func (u *up) startEtcd(context.Context) error {
	binary, err := run.EtcdBinary(false)
	if run.Missing(err) {
		say("building etcd from tools/etcd (once, about a minute)")
		binary, err = run.EtcdBinary(true)
	}
	if err != nil {
		return err
	}
	say("etcd on 127.0.0.1:%d", u.port+40)
	u.etcd, err = run.NewEtcd(run.EtcdConfig{Dir: filepath.Join(u.dir, "etcd"), Port: u.port + 40, Binary: binary})
	return err
}

// database is the one of the cluster.
const database = "tidegate"

// startPostgres starts the database and its standby, and makes commits wait for
// both.
func (u *up) startPostgres(ctx context.Context) error {
	password, err := u.password()
	if err != nil {
		return err
	}
	say("PostgreSQL on 127.0.0.1:%d, its synchronous standby on %d", u.port+30, u.port+31)
	u.postgres, err = run.NewPostgres(run.PostgresConfig{Dir: filepath.Join(u.dir, "postgres"), Port: u.port + 30, Password: password})
	if err != nil {
		return err
	}
	u.standby, err = u.postgres.Standby(ctx, "standby", run.PostgresConfig{Dir: filepath.Join(u.dir, "standby"), Port: u.port + 31})
	if err != nil {
		return err
	}
	if err := u.postgres.SyncNames(ctx, "FIRST 1 (standby)"); err != nil {
		return err
	}
	have, err := u.postgres.Query(ctx, "postgres", "SELECT count(*)::text FROM pg_database WHERE datname = '"+database+"'")
	if err == nil && have == "0" {
		err = u.postgres.Exec(ctx, "postgres", "CREATE DATABASE "+database)
	}
	return err
}

func (u *up) passwordFile() string { return filepath.Join(u.dir, "postgres.password") }

// password is the database's, made at the first start: other users of this
// machine reach its port too.
func (u *up) password() (string, error) {
	b, err := os.ReadFile(u.passwordFile())
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(rand.Text() + "\n")
		err = os.WriteFile(u.passwordFile(), b, 0o600)
	}
	return strings.TrimSpace(string(b)), err
}

// startRoles starts everything of Tidegate's own.
func (u *up) startRoles(context.Context) (err error) {
	at := func(offset int) string { return fmt.Sprintf("127.0.0.1:%d", u.port+offset) }
	u.cluster, err = cluster.New(cluster.Config{
		Dir: u.dir, Binary: u.binary, Journal: u.postgres.URL(database), PasswordFile: u.passwordFile(),
		Etcd: []string{u.etcd.Addr()}, Settings: "durability:\n  require: sync-replica\n",
		Processes: []cluster.Process{
			{Role: cluster.Projector, Name: "projector-1", Admin: at(22)},
			{Role: cluster.Projector, Name: "projector-2", Admin: at(23)},
			{Role: cluster.Trial, Name: "trial-1", RPC: at(1), Admin: at(12)},
			{Role: cluster.Trial, Name: "trial-2", RPC: at(11), Admin: at(13)},
			{Role: cluster.Gateway, Name: "gateway-1", HTTP: at(0), Admin: at(2)},
			{Role: cluster.Gateway, Name: "gateway-2", HTTP: at(10), Admin: at(3)},
		},
	})
	if err != nil {
		return err
	}
	if err := u.cluster.Migrate(); err != nil {
		return err
	}
	say("two projectors, two Trial services, two gateways")
	return u.cluster.StartAll()
}

// seed writes the demo registry.
func (u *up) seed(context.Context) error {
	say("the demo registry: trials T001 and T002, %d participants", u.participants)
	return u.cluster.Seed(u.participants)
}

// restart starts what was killed, as a supervisor would: so that a reader who
// kills one sees it come back.
func (u *up) restart() {
	for _, role := range []string{cluster.Gateway, cluster.Trial, cluster.Projector} {
		for _, r := range u.cluster.Of(role) {
			select {
			case <-r.Ended():
				say("%s ended: starting it again", r.Name)
				if _, err := u.cluster.Start(r.Name); err != nil {
					say("%v", err)
				}
			default:
			}
		}
	}
}

// stop ends everything, Tidegate first.
func (u *up) stop() (err error) {
	if u.cluster != nil {
		err = u.cluster.StopAll()
	}
	// The primary before the standby: its last commits wait for it.
	if u.postgres != nil {
		err = errors.Join(err, u.postgres.Stop())
	}
	if u.standby != nil {
		err = errors.Join(err, u.standby.Stop())
	}
	if u.etcd != nil {
		err = errors.Join(err, u.etcd.Stop())
	}
	return err
}

// print prints requests to paste, the same as `make run`.
func (u *up) print() error {
	phone, err := u.cluster.Command("token", "participant", "--data", u.cluster.Root(), "--patient", "P-000001", "--trial", "T001", "--ttl", "24h", "--device", "demo-phone")
	if err != nil {
		return err
	}
	staff, err := u.cluster.Operate("token", "staff", "--role", "coordinator", "--name", "demo-coordinator", "--trial", "T001", "--ttl", "24h")
	if err != nil {
		return err
	}
	keys, err := u.cluster.Command("keys", "list", "--data", u.cluster.Root())
	if err != nil {
		return err
	}
	fields := strings.Fields(keys)
	if len(fields) < 2 {
		return errors.New("keys list names no root")
	}
	first := u.cluster.Of(cluster.Gateway)[0]
	fmt.Printf(requests, first.URL(), strings.TrimSpace(phone), u.binary, u.cluster.Root(), fields[1], time.Now().Format(time.RFC3339),
		strings.TrimSpace(staff), u.cluster.ConfigFile(), filepath.Join(u.dir, "logs"), min(waveOfPhones, u.participants))
	fmt.Println("Tidegate's processes; kill any of them, it comes back. PostgreSQL and etcd come back with Ctrl-C and a new run:")
	for _, role := range []string{cluster.Gateway, cluster.Trial, cluster.Projector} {
		for _, r := range u.cluster.Of(role) {
			at := ""
			switch role {
			case cluster.Gateway:
				at = "  " + r.URL()
			case cluster.Trial:
				at = "  gRPC " + r.RPC
			}
			fmt.Printf("  %-12s pid %-7d http://%s/status%s\n", r.Name, r.Pid(), r.Admin, at)
		}
	}
	fmt.Printf("\nStop: Ctrl-C. Run it again and it goes on where it was; delete %s to begin anew.\n", u.dir)
	return nil
}

// waveOfPhones is the wave that is suggested, where there are as many
// participants: reports of others would be quarantined.
const waveOfPhones = 10_000

const requests = `
Acknowledged reports survive the loss of one database server (class sync-replica); both run on this machine here.

Root key fingerprint (receipts are checked against it):
  %[5]s

Send a report as patient P-000001, from another terminal; the answer holds a receipt:
  curl -sS %[1]s/v1/patient/report \
    -H 'Authorization: Bearer %[2]s' \
    -H 'Content-Type: application/json' \
    -d '{"patientId":"P-000001","trialId":"T001","timestamp":"%[6]s","qolScore":7,"comments":"Slept well."}'

See what became of it, as the patient and as the site:
  curl -sS %[1]s/v1/patient/reports -H 'Authorization: Bearer %[2]s'
  curl -sS %[1]s/v1/trials/T001/books -H 'Authorization: Bearer %[7]s'

See the patient's trial, from the gateway's own copy of the directory:
  curl -sS %[1]s/v1/patient/trials -H 'Authorization: Bearer %[2]s'

Check a receipt with no server (paste the receipt between the quotes):
  curl -sS %[1]s/v1/keys > keys.json
  echo 'RECEIPT' | %[3]s verify receipt - --keys keys.json --root %[5]s

Send a wave of %[10]d phones in a minute, then prove that nothing was lost:
  %[3]s load --target %[1]s --data %[4]s --phones %[10]d --over 60s --retry --acks acks.ndjson
  %[3]s verify --data %[4]s --config %[8]s --acks acks.ndjson

Logs: %[9]s

`
