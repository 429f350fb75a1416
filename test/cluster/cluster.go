// Package cluster runs the second shape on one machine: every role as a process
// of the real binary, on fixed loopback ports, so that one that was killed comes
// back where its callers look for it. It knows nothing of package testing: tests
// and `make cluster` use it alike.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Roles, as `tidegate serve` names them.
const (
	Gateway   = "gateway"
	Trial     = "trial"
	Projector = "projector"
)

// Config says what a cluster stands on and how it is made.
type Config struct {
	Dir    string // its folder; one that is there already is used as it is
	Binary string // of tidegate

	Journal, Store, Vault string   // databases; Store and Vault like Journal when empty
	PasswordFile          string   // of the databases
	Etcd                  []string // endpoints; none: the gateways know the Trial services by address
	Prefix                string   // of the keys in etcd
	Settings              string   // more lines of tidegate.yaml, whole sections
	Env                   []string // added to the environment of each process

	Processes []Process // in the order in which they are started
}

// Process says which role runs where. Addresses are host:port; those that the
// role does not have are left out.
type Process struct {
	Role, Name       string
	HTTP, Admin, RPC string
}

// Cluster is the second shape on this machine.
type Cluster struct {
	cfg     Config
	running []*Running
}

// New makes the folder: the root keys, the configuration, and for each process
// a folder with keys of its own. What is there is kept, the configuration aside.
func New(cfg Config) (*Cluster, error) {
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "logs"), 0o700); err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg}
	if err := os.WriteFile(c.ConfigFile(), []byte(c.settings()), 0o600); err != nil {
		return nil, err
	}
	if !exists(c.Root()) {
		if _, err := c.Command("keys", "init", "--data", c.Root()); err != nil {
			return nil, err
		}
	}
	for _, p := range cfg.Processes {
		dir := filepath.Join(cfg.Dir, p.Name)
		if exists(filepath.Join(dir, "keys")) {
			continue
		}
		if _, err := c.Command("keys", "issue", "--data", c.Root(), "--to", dir, "--name", p.Name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// settings are the lines of the configuration that all processes read.
func (c *Cluster) settings() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("postgres:")
	line("  journalURL: %q", c.cfg.Journal)
	line("  storeURL: %q", or(c.cfg.Store, c.cfg.Journal))
	line("  vaultURL: %q", or(c.cfg.Vault, c.cfg.Journal))
	if c.cfg.PasswordFile != "" {
		line("  passwordFile: %q", c.cfg.PasswordFile)
	}
	// One file for all of them: whoever projects goes on with it.
	line("anchors: [%q]", filepath.Join(c.cfg.Dir, "anchor.txt"))
	if len(c.cfg.Etcd) > 0 {
		line("etcd:\n  endpoints: [%s]", quoted(c.cfg.Etcd))
		if c.cfg.Prefix != "" {
			line("  key: %q\n  election: %q", c.cfg.Prefix+"/trial.rpc", c.cfg.Prefix+"/projector")
		}
	} else if trials := c.addresses(func(p Process) string { return p.RPC }); len(trials) > 0 {
		line("trial:\n  endpoints: [%s]", quoted(trials))
	}
	b.WriteString(c.cfg.Settings)
	return b.String()
}

func or(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}

func (c *Cluster) addresses(of func(Process) string) (list []string) {
	for _, p := range c.cfg.Processes {
		if a := of(p); a != "" {
			list = append(list, a)
		}
	}
	return list
}

// Dir is its folder.
func (c *Cluster) Dir() string { return c.cfg.Dir }

// Root is the root folder: the keys of the installation.
func (c *Cluster) Root() string { return filepath.Join(c.cfg.Dir, "root") }

// ConfigFile is what all processes read.
func (c *Cluster) ConfigFile() string { return filepath.Join(c.cfg.Dir, "tidegate.yaml") }

// Anchor is where checkpoints go.
func (c *Cluster) Anchor() string { return filepath.Join(c.cfg.Dir, "anchor.txt") }

// Acks is a file beside it for acknowledgements.
func (c *Cluster) Acks() string { return filepath.Join(c.cfg.Dir, "acks.ndjson") }

// environ is the environment without TIDEGATE_ variables, which speak to the
// tests, and with those of the cluster.
func (c *Cluster) environ(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "TIDEGATE_") })
	return append(append(env, c.cfg.Env...), more...)
}

// commandLimit bounds a command: seeding many participants takes the longest.
const commandLimit = 5 * time.Minute

// Command runs a command of the binary and returns what it printed.
func (c *Cluster) Command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.cfg.Binary, args...) //nolint:gosec // what this package runs
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = c.environ(), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("tidegate %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// Operate runs a command that works on the journal, the tables or the vault.
func (c *Cluster) Operate(args ...string) (string, error) {
	return c.Command(append(args, "--data", c.Root(), "--config", c.ConfigFile())...)
}

// Migrate sets the databases up, or brings them up to this version.
func (c *Cluster) Migrate() error {
	_, err := c.Command("migrate", "--config", c.ConfigFile())
	return err
}

// Seed writes the demo registry, as far as it is missing.
func (c *Cluster) Seed(participants int) error {
	_, err := c.Operate("seed", "--participants", fmt.Sprint(participants))
	return err
}

// Start starts the process of that name and returns at once. More settings may
// be given as environment variables.
func (c *Cluster) Start(name string, env ...string) (*Running, error) {
	i := slices.IndexFunc(c.cfg.Processes, func(p Process) bool { return p.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("no process is called %s", name)
	}
	p := c.cfg.Processes[i]
	for _, a := range []struct{ key, addr string }{{"HTTP", p.HTTP}, {"ADMIN", p.Admin}, {"RPC", p.RPC}} {
		if a.addr != "" {
			env = append(env, "TIDEGATE_"+a.key+"="+a.addr)
		}
	}
	r, err := start(p, filepath.Join(c.cfg.Dir, "logs", name+".log"), c.environ(env...),
		c.cfg.Binary, "serve", p.Role, "--data", filepath.Join(c.cfg.Dir, name), "--config", c.ConfigFile())
	if err != nil {
		return nil, err
	}
	c.running = slices.DeleteFunc(c.running, func(o *Running) bool { return o.Name == name })
	c.running = append(c.running, r)
	return r, nil
}

// StartAll starts all processes and waits until they are ready.
func (c *Cluster) StartAll() error {
	for _, p := range c.cfg.Processes {
		if _, err := c.Start(p.Name); err != nil {
			return err
		}
	}
	return c.Ready(time.Minute)
}

// Ready waits until all processes that were started are ready.
func (c *Cluster) Ready(limit time.Duration) error {
	for _, r := range c.running {
		if err := r.Ready(limit); err != nil {
			return err
		}
	}
	return nil
}

// Named is the process of that name as it was started last; nil before.
func (c *Cluster) Named(name string) *Running {
	for _, r := range c.running {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Of are the processes of a role that were started, in order.
func (c *Cluster) Of(role string) (list []*Running) {
	for _, p := range c.cfg.Processes {
		if r := c.Named(p.Name); r != nil && p.Role == role {
			list = append(list, r)
		}
	}
	return list
}

// KillAll ends every process with SIGKILL.
func (c *Cluster) KillAll() {
	for _, r := range c.running {
		r.Kill()
	}
}

// StopAll stops every process as an operator does, the gateways first, and says
// which did not end well.
func (c *Cluster) StopAll() (err error) {
	for _, role := range []string{Gateway, Trial, Projector} {
		for _, r := range c.Of(role) {
			err = errors.Join(err, r.Stop())
		}
	}
	return err
}

// Output is all that the processes have printed since each was started.
func (c *Cluster) Output() string {
	var b strings.Builder
	for _, r := range c.running {
		b.WriteString(r.Output())
	}
	return b.String()
}
