package check

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// jobs end; everything else goes on and says how it is.
var jobs = []string{"secrets", "migrate"}

// own is what each container has of its own, by the target in it.
var own = map[string]string{"/var/lib/tidegate/data": "data", "/run/secrets/tidegate": "secrets"}

// Compose checks deploy/compose.yaml and returns it.
func Compose(ctx context.Context, deploy string) (*types.Project, problems) {
	var p problems
	path := filepath.Join(deploy, "compose.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		p.add("%v", err)
		return nil, p
	}
	// With its schema, references between services and names of files in place.
	project, err := loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir: deploy, ConfigFiles: []types.ConfigFile{{Filename: path, Content: text}}, Environment: types.Mapping{},
	}, func(o *loader.Options) { o.SetProjectName("tidegate", true) })
	if err != nil {
		p.add("compose.yaml: %v", err)
		return nil, p
	}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		p.service(project.Services[name])
	}
	for name, c := range project.Configs {
		if _, err := os.Stat(c.File); err != nil {
			p.add("compose.yaml: config %s: %v", name, err)
		}
	}
	p.rolesOfSecrets(deploy, project)
	return project, p
}

func (p *problems) service(s types.ServiceConfig) {
	bad := func(format string, args ...any) { p.add("compose.yaml: "+s.Name+": "+format, args...) }
	job := slices.Contains(jobs, s.Name)
	p.pinned("compose.yaml: "+s.Name, s.Image)
	if s.User != user {
		bad("runs as %q, not as %s", s.User, user)
	}
	if !s.ReadOnly || s.Privileged || !slices.Contains(s.CapDrop, "ALL") || len(s.CapAdd) > 0 || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
		bad("is not closed: read_only, cap_drop ALL and no-new-privileges are wanted, privileges and capabilities are not")
	}
	if s.Deploy == nil || s.Deploy.Resources.Limits == nil || s.Deploy.Resources.Limits.MemoryBytes == 0 || s.Deploy.Resources.Limits.Pids == 0 {
		bad("has no limits of memory and processes")
	}
	healthy := s.HealthCheck != nil && !s.HealthCheck.Disable && len(s.HealthCheck.Test) > 1 && s.HealthCheck.Test[0] == "CMD"
	if !job && !healthy {
		bad("has no healthcheck that runs without a shell")
	}
	if !job && s.Restart != "unless-stopped" {
		bad("is not restarted")
	}
	for on, d := range s.DependsOn {
		want := types.ServiceConditionHealthy
		if slices.Contains(jobs, on) {
			want = types.ServiceConditionCompletedSuccessfully
		}
		if d.Condition != want {
			bad("waits for %s to be %s, not %s", on, d.Condition, want)
		}
	}
	for _, port := range s.Ports {
		if port.HostIP != "127.0.0.1" {
			bad("publishes port %s to other machines", port.Published)
		}
		if port.Target == 8082 {
			bad("publishes the admin listener")
		}
	}
	for name, value := range s.Environment {
		if secretName.MatchString(name) && !strings.HasSuffix(name, "_FILE") && value != nil {
			bad("has a secret in its environment: %s", name)
		}
	}
	for _, v := range s.Volumes {
		p.volume(s, v)
	}
}

var secretName = regexp.MustCompile(`(?i)password|secret|token|private`)

// volume checks that a container sees its own part of a shared volume alone.
func (p *problems) volume(s types.ServiceConfig, v types.ServiceVolumeConfig) {
	bad := func(format string, args ...any) { p.add("compose.yaml: "+s.Name+": "+format, args...) }
	if v.Type != types.VolumeTypeVolume {
		bad("mounts %s of the machine itself", v.Source)
	}
	if s.Name == "secrets" {
		return
	}
	if v.Source == "root" {
		bad("sees the root key")
	}
	source, shared := own[v.Target]
	part := ""
	if v.Volume != nil {
		part = v.Volume.Subpath
	}
	if shared && (v.Source != source || part != s.Name) || !shared && slices.Contains([]string{"data", "secrets"}, v.Source) {
		bad("sees %q of volume %s, at %s", part, v.Source, v.Target)
	}
	if v.Source == "secrets" && !v.ReadOnly {
		bad("may change its secrets")
	}
}

var rolesLine = regexp.MustCompile(`(?m)^roles="(.*)"$`)

// rolesOfSecrets checks that the job makes keys for each role that is served,
// and for no other.
func (p *problems) rolesOfSecrets(deploy string, project *types.Project) {
	text, err := os.ReadFile(filepath.Join(deploy, "compose", "secrets.sh"))
	if err != nil {
		p.add("%v", err)
		return
	}
	var made []string
	if m := rolesLine.FindSubmatch(text); m != nil {
		made = strings.Fields(string(m[1]))
	}
	var served []string
	for name, s := range project.Services {
		if len(s.Command) > 1 && s.Command[0] == "serve" {
			served = append(served, name)
			if role := s.Command[1]; !strings.HasPrefix(name, role+"-") {
				p.add("compose.yaml: %s serves %s", name, role)
			}
		}
	}
	slices.Sort(made)
	slices.Sort(served)
	if !slices.Equal(made, served) {
		p.add("compose/secrets.sh makes keys for %v, compose.yaml serves %v", made, served)
	}
}

// runs lists how containers run a command of tidegate that reads a
// configuration file.
func composeRuns(project *types.Project) (runs []run) {
	for name, s := range project.Services {
		i := slices.Index(s.Command, "--config")
		if i < 0 || i+1 == len(s.Command) {
			continue
		}
		r := run{where: "compose.yaml: " + name, args: s.Command}
		for _, c := range s.Configs {
			if c.Target == s.Command[i+1] {
				r.file = project.Configs[c.Source].File
			}
		}
		for k, v := range s.Environment {
			if v != nil {
				r.environ = append(r.environ, k+"="+*v)
			}
		}
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(a, b run) int { return strings.Compare(a.where, b.where) })
	return runs
}
