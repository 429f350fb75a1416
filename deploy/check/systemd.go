package check

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// units are the units of deploy/systemd; one with an instance is checked for it.
var units = map[string]string{"tidegate.service": "tidegate.service", "tidegate@.service": "tidegate@gateway.service"}

// stopTime is more than the time that a clean stop may take.
const stopTime = 12 * time.Second

// Systemd checks the units by rules of this project.
func Systemd(deploy string) (p problems) {
	for file := range units {
		text, err := os.ReadFile(filepath.Join(deploy, "systemd", file))
		if err != nil {
			p.add("%v", err)
			continue
		}
		set := map[string][]string{}
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
				set[k] = append(set[k], v)
			}
		}
		for key, want := range map[string]string{
			"User": "tidegate", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "Restart": "on-failure", "CapabilityBoundingSet": "",
			"StateDirectoryMode": "0700", "UMask": "0077", "KillMode": "mixed", "Type": "exec",
		} {
			if !slices.Equal(set[key], []string{want}) {
				p.add("%s: %s is %q, must be %q", file, key, set[key], want)
			}
		}
		if d, err := time.ParseDuration(strings.Join(set["TimeoutStopSec"], "") + "s"); err != nil || d < stopTime {
			p.add("%s: TimeoutStopSec is %q: a clean stop may take 10 s", file, set["TimeoutStopSec"])
		}
		for _, key := range []string{"LimitNOFILE", "StateDirectory", "ExecStartPre", "ExecStart", "SystemCallFilter"} {
			if len(set[key]) == 0 {
				p.add("%s: has no %s", file, key)
			}
		}
	}
	return p
}

// maxExposure is the highest score of `systemd-analyze security`, in tenths,
// that passes; 100 is no protection at all.
const maxExposure = "20"

// SystemdVerify has systemd's own verifier read the units, with tidegate in the
// place of the installed binary.
func SystemdVerify(ctx context.Context, analyze, deploy, tidegate, temp string) (p problems) {
	for file, instance := range units {
		text, err := os.ReadFile(filepath.Join(deploy, "systemd", file))
		if err != nil {
			p.add("%v", err)
			continue
		}
		unit := filepath.Join(temp, instance)
		if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/bin/tidegate", tidegate)), 0o600); err != nil {
			p.add("%v", err)
			continue
		}
		for _, args := range [][]string{
			{"verify", "--man=no", "--recursive-errors=no", unit},
			{"security", "--offline=true", "--no-pager", "--threshold=" + maxExposure, unit},
		} {
			out, err := exec.CommandContext(ctx, analyze, args...).CombinedOutput()
			// What it merely ignores, such as a misspelt key, it says and is content.
			if err != nil || args[0] == "verify" && strings.Contains(string(out), file) {
				p.add("%s: systemd-analyze %s: %s", file, args[0], strings.TrimSpace(string(out)))
			}
		}
	}
	return p
}
