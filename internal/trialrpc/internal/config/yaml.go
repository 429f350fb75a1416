package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// file is etc/trial.yaml: go-zero's names where go-zero has one, and the rest
// in its manner.
type file struct {
	Name         *string   `yaml:"Name"`
	ListenOn     *string   `yaml:"ListenOn"`
	Mode         *string   `yaml:"Mode"`
	Timeout      *int64    `yaml:"Timeout"`      // milliseconds
	CPUThreshold *int64    `yaml:"CpuThreshold"` // 0, or go-zero's 900: see Shedding
	Health       *bool     `yaml:"Health"`
	Etcd         *fileEtcd `yaml:"Etcd"`

	Advertise     *string   `yaml:"Advertise"`
	Endpoints     *[]string `yaml:"Endpoints"`
	MaxConcurrent *int      `yaml:"MaxConcurrent"`
	Rate          *int      `yaml:"Rate"`
	Burst         *int      `yaml:"Burst"`
	TLS           *fileTLS  `yaml:"TLS"`
}

type fileEtcd struct {
	Hosts       *[]string `yaml:"Hosts"`
	Key         *string   `yaml:"Key"`
	User        *string   `yaml:"User"`
	PassFile    *string   `yaml:"PassFile"`
	CertFile    *string   `yaml:"CertFile"`
	CertKeyFile *string   `yaml:"CertKeyFile"`
	CACertFile  *string   `yaml:"CACertFile"`
}

type fileTLS struct {
	CertFile    *string `yaml:"CertFile"`
	CertKeyFile *string `yaml:"CertKeyFile"`
	CACertFile  *string `yaml:"CACertFile"`
}

// shedAt is the load at which go-zero's shedder begins, in thousandths of all
// CPUs; it has no other setting here.
const shedAt = 900

// elsewhere are go-zero's keys for what Tidegate's own configuration says:
// nothing is said twice.
var elsewhere = map[string]string{
	"Log": "log.format and log.level", "Telemetry": "tracing.endpoint", "DevServer": "admin", "Prometheus": "admin",
	"MetricsUrl": "admin", "Profiling": "admin", "Auth": "rpcTLS", "Redis": "rpcTLS", "StrictControl": "rpcTLS",
	"Middlewares": "trial.timeout, trial.rate and the others of trial", "MethodTimeouts": "trial.timeout", "Shutdown": "nothing: every stop waits for what is in hand",
}

// Load reads etc/trial.yaml over settings that are there already: a key that
// the file does not name stays as it is. go-zero passes over a key that it does
// not know, and a typing error in Timeout goes unseen; here it is an error.
func Load(path string, c Config) (Config, error) {
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return c, fmt.Errorf("the Trial service's settings: %w", err)
	}
	var keys map[string]any
	if err := yaml.Unmarshal(text, &keys); err != nil {
		return c, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	for key := range keys {
		if place, known := elsewhere[key]; known {
			return c, fmt.Errorf("%s: %s is said in Tidegate's own configuration, by %s: take it out here", path, key, place)
		}
	}
	if etcd, ok := keys["Etcd"].(map[string]any); ok && etcd["Pass"] != nil {
		return c, fmt.Errorf("%s: Etcd.Pass would be a password in a configuration: put it into a file and name that with Etcd.PassFile", path)
	}
	var f file
	if err := yaml.UnmarshalWithOptions(text, &f, yaml.Strict()); err != nil {
		return c, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	if err := f.over(&c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (f *file) over(c *Config) error {
	if f.Name != nil && *f.Name != Name {
		return fmt.Errorf("the key Name is %s in every Tidegate; what it is found under is Etcd.Key", Name)
	}
	if f.Health != nil && !*f.Health {
		return errors.New("the key Health cannot be turned off: orchestrators and balancers ask it")
	}
	if f.Mode != nil {
		switch *f.Mode {
		case "pro", "pre":
			c.Reflection = false
		case "dev", "test", "rt":
			c.Reflection = true
		default:
			return errors.New("the key Mode must be dev, test, rt, pre or pro")
		}
	}
	if f.Timeout != nil {
		if *f.Timeout <= 0 || *f.Timeout > time.Hour.Milliseconds() {
			return errors.New("the key Timeout must be 1 to 3600000 milliseconds: a call without an end holds its caller for ever")
		}
		c.Timeout = time.Duration(*f.Timeout) * time.Millisecond
	}
	if f.CPUThreshold != nil {
		if *f.CPUThreshold != 0 && *f.CPUThreshold != shedAt {
			return fmt.Errorf("the key CpuThreshold must be 0 (off) or %d", shedAt)
		}
		c.Shedding = *f.CPUThreshold != 0
	}
	set(&c.Listen, f.ListenOn)
	set(&c.Advertise, f.Advertise)
	set(&c.Endpoints, f.Endpoints)
	set(&c.MaxConcurrent, f.MaxConcurrent)
	set(&c.Rate, f.Rate)
	set(&c.Burst, f.Burst)
	if e := f.Etcd; e != nil {
		set(&c.Etcd.Endpoints, e.Hosts)
		set(&c.Etcd.Key, e.Key)
		set(&c.Etcd.User, e.User)
		set(&c.Etcd.PasswordFile, e.PassFile)
		set(&c.Etcd.Cert, e.CertFile)
		set(&c.Etcd.CertKey, e.CertKeyFile)
		set(&c.Etcd.CA, e.CACertFile)
	}
	if t := f.TLS; t != nil {
		set(&c.TLS.Cert, t.CertFile)
		set(&c.TLS.Key, t.CertKeyFile)
		set(&c.TLS.CA, t.CACertFile)
	}
	c.Listen = strings.TrimSpace(c.Listen)
	return nil
}
