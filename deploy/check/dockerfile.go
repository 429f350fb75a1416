package check

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// user is the user and group of every container.
const user = "65532:65532"

var goLine = regexp.MustCompile(`(?m)^go (\d+\.\d+)`)

// Dockerfile checks deploy/Dockerfile and .dockerignore; root is the
// repository's folder.
func Dockerfile(root, deploy string) (p problems) {
	text, err := os.ReadFile(filepath.Join(deploy, "Dockerfile"))
	if err != nil {
		p.add("%v", err)
		return p
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		p.add("Dockerfile: %v", err)
		return p
	}
	for _, w := range parsed.Warnings {
		p.add("Dockerfile: %s", w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, msg string, at []parser.Range) {
		line := 0
		if len(at) > 0 {
			line = at[0].Start.Line
		}
		p.add("Dockerfile line %d: %s: %s", line, rule, msg)
	}})
	stages, args, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		p.add("Dockerfile: %v", err)
		return p
	}
	values := map[string]string{}
	for _, a := range args {
		for _, kv := range a.Args {
			values[kv.Key] = kv.ValueString()
		}
	}
	p.bases(root, stages, values)
	p.sources(root, stages)
	p.final(stages[len(stages)-1])
	build := string(text)
	for _, must := range []string{"CGO_ENABLED=0", "-tags no_k8s", "-trimpath", "-buildvcs=false"} {
		if !strings.Contains(build, must) {
			p.add("Dockerfile: the binary is built without %s", must)
		}
	}
	return p
}

// bases are pinned, and the compiler is one that go.mod takes.
func (p *problems) bases(root string, stages []instructions.Stage, values map[string]string) {
	for _, s := range stages {
		base := os.Expand(s.BaseName, func(name string) string { return values[name] })
		if base != "scratch" {
			p.pinned("Dockerfile, stage "+s.Name, base)
		}
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		p.add("%v", err)
		return
	}
	if m := goLine.FindSubmatch(mod); m == nil || !strings.HasPrefix(values["GO_VERSION"], string(m[1])) {
		p.add("Dockerfile: GO_VERSION is %s, go.mod asks for %s", values["GO_VERSION"], m[1])
	}
}

// pinned refuses an image without a version.
func (p *problems) pinned(where, image string) {
	name, digest, _ := strings.Cut(image, "@")
	_, tag, _ := strings.Cut(path.Base(name), ":")
	if digest == "" && (tag == "" || tag == "latest" || !strings.ContainsAny(tag, "0123456789") && tag != "dev") {
		p.add("%s: image %q names no version", where, image)
	}
}

// sources are in the repository, and .dockerignore lets them through.
func (p *problems) sources(root string, stages []instructions.Stage) {
	ignore, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		p.add("%v", err)
		return
	}
	lines := strings.Fields(strings.ReplaceAll(string(ignore), "# ", "#"))
	all := false
	for _, l := range lines {
		all = all || l == "*"
	}
	if !all {
		p.add(".dockerignore: does not begin by leaving everything out: keys and data could reach a build")
	}
	for _, s := range stages {
		for _, c := range s.Commands {
			copies, ok := c.(*instructions.CopyCommand)
			if !ok || copies.From != "" {
				continue
			}
			for _, from := range copies.SourcePaths {
				if _, err := os.Stat(filepath.Join(root, from)); err != nil {
					p.add("Dockerfile: COPY %s: there is no such file in the repository", from)
				}
				if !strings.Contains("\n"+string(ignore), "\n!"+from+"\n") {
					p.add("Dockerfile: COPY %s: .dockerignore leaves it out", from)
				}
			}
		}
	}
}

// final checks the image that is shipped.
func (p *problems) final(s instructions.Stage) {
	seen := map[string]bool{}
	for _, c := range s.Commands {
		seen[strings.ToLower(c.Name())] = true
		switch c := c.(type) {
		case *instructions.UserCommand:
			if c.User != user {
				p.add("Dockerfile: runs as %s, not as %s", c.User, user)
			}
		case *instructions.HealthCheckCommand:
			if len(c.Health.Test) < 2 || c.Health.Test[0] != "CMD" {
				p.add("Dockerfile: HEALTHCHECK needs a shell, and there is none: write it as a list")
			}
		case *instructions.EntrypointCommand:
			if c.PrependShell {
				p.add("Dockerfile: ENTRYPOINT needs a shell, and there is none: write it as a list")
			}
		case *instructions.CmdCommand:
			if c.PrependShell {
				p.add("Dockerfile: CMD needs a shell, and there is none: write it as a list")
			}
		case *instructions.RunCommand:
			p.add("Dockerfile: RUN in the image that is shipped: there is nothing in it to run")
		}
	}
	for _, must := range []string{"user", "healthcheck", "entrypoint", "cmd", "label", "stopsignal"} {
		if !seen[must] {
			p.add("Dockerfile: the image that is shipped has no %s", strings.ToUpper(must))
		}
	}
	if s.BaseName != "scratch" {
		p.add("Dockerfile: the image that is shipped is made on %s, not on scratch", s.BaseName)
	}
}
