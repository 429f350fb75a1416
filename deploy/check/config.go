package check

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// run is a command of tidegate with the configuration file it reads.
type run struct {
	where   string // what runs it, for people
	args    []string
	environ []string
	file    string // "" when it is not there
	text    string // its content, instead of file
}

// secretsAt is where every container finds its certificates and password.
const secretsAt = "/run/secrets/tidegate"

// Config asks tidegate itself whether the configuration of each run can work.
// secrets is a folder with what containers find at secretsAt, temp one to
// write to.
func Config(ctx context.Context, tidegate, secrets, temp string, runs []run) (p problems) {
	for _, r := range runs {
		text := []byte(r.text)
		if r.text == "" {
			var err error
			if text, err = os.ReadFile(r.file); err != nil {
				p.add("%s: its configuration file is not mounted: %v", r.where, err)
				continue
			}
		}
		here := strings.NewReplacer(secretsAt, secrets)
		file := filepath.Join(temp, "checked.yaml")
		if err := os.WriteFile(file, []byte(here.Replace(string(text))), 0o600); err != nil {
			p.add("%v", err)
			continue
		}
		cmd := exec.CommandContext(ctx, tidegate, "config", "check", file)
		for _, kv := range r.environ {
			if strings.HasPrefix(kv, "TIDEGATE_") {
				cmd.Env = append(cmd.Env, here.Replace(kv))
			}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			p.add("%s: %s", r.where, strings.TrimSpace(strings.ReplaceAll(string(out), file, r.file)))
		}
	}
	return p
}
