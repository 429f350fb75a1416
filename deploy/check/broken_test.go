package check

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// change is what somebody might do to a file by mistake.
type change struct {
	file     string
	old, new string
	says     string // a part of what the check must say
}

// broken is a copy of deploy/ with one file changed.
func broken(t *testing.T, c change) string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir(deploy, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(deploy, path)
		if err != nil || d.IsDir() && rel == "check" {
			if err == nil {
				err = filepath.SkipDir
			}
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dir, rel), 0o700)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if filepath.ToSlash(rel) == c.file {
			if !strings.Contains(string(text), c.old) {
				t.Fatalf("%s has no %q: this test changes nothing", c.file, c.old)
			}
			text = []byte(strings.Replace(string(text), c.old, c.new, 1))
		}
		return os.WriteFile(filepath.Join(dir, rel), text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// said checks that a check found the change.
func said(t *testing.T, c change, p problems) {
	t.Helper()
	for _, s := range p {
		if strings.Contains(s, c.says) {
			return
		}
	}
	t.Errorf("%s: %q instead of %q: found %q, must say %q", c.file, c.new, c.old, p, c.says)
}

func TestBrokenDockerfile(t *testing.T) {
	for _, c := range []change{
		{"Dockerfile", "FROM scratch AS tidegate", "FROM scratch AS Tidegate", "StageNameCasing"},
		{"Dockerfile", "FROM scratch AS", "FROM scratch as", "FromAsCasing"},
		{"Dockerfile", "WORKDIR /src", "WORKDIR", "WORKDIR"},
		{"Dockerfile", "COPY api", "COPPY api", "unknown instruction"},
		{"Dockerfile", "COPY api ./api", "COPY apis ./api", "no such file"},
		{"Dockerfile", "COPY api ./api", "COPY docs ./docs", ".dockerignore leaves it out"},
		{"Dockerfile", "golang:${GO_VERSION}-bookworm", "golang:latest", "names no version"},
		{"Dockerfile", "golang:${GO_VERSION}-bookworm", "golang", "names no version"},
		{"Dockerfile", "GO_VERSION=1.26.8", "GO_VERSION=1.21.0", "go.mod asks for"},
		{"Dockerfile", "USER 65532:65532", "USER root", "runs as root"},
		{"Dockerfile", "USER 65532:65532\n", "", "no USER"},
		{"Dockerfile", `CMD ["/usr/bin/tidegate", "status", "--ready"]`, "CMD tidegate status", "HEALTHCHECK needs a shell"},
		{"Dockerfile", `ENTRYPOINT ["/usr/bin/tidegate"]`, "ENTRYPOINT tidegate", "ENTRYPOINT needs a shell"},
		{"Dockerfile", "FROM scratch", "FROM debian:12.1", "not on scratch"},
		{"Dockerfile", "-tags no_k8s ", "", "no_k8s"},
		{"Dockerfile", "CGO_ENABLED=0 ", "", "CGO_ENABLED"},
	} {
		said(t, c, Dockerfile(root, broken(t, c)))
	}
}

func TestBrokenCompose(t *testing.T) {
	const f = "compose.yaml"
	for _, c := range []change{
		{f, "read_only: true\n  cap_drop", "read_onli: true\n  cap_drop", "read_onli"},
		{f, "stop_grace_period: 15s", "stop_grace_period: soon", "soon"},
		{f, "  read_only: true\n", "", "is not closed"},
		{f, "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "is not closed"},
		{f, `user: "65532:65532"`, `user: "0"`, `runs as "0"`},
		{f, "postgres:15.18-bookworm", "postgres:latest", "names no version"},
		{f, "v3.5.21", "latest", "names no version"},
		{f, "memory: 512M, ", "", "no limits"},
		{f, "    healthcheck:\n      test:\n        - CMD\n", "    x-no:\n      test:\n        - CMD\n", "etcd: has no healthcheck"},
		{f, "migrate: {condition: service_completed_successfully}", "migrate: {condition: service_started}", "waits for migrate"},
		{f, "etcd: {condition: service_healthy}", "etcdd: {condition: service_healthy}", "etcdd"},
		{f, `"127.0.0.1:8090:8080"`, `"8090:8080"`, "to other machines"},
		{f, `"127.0.0.1:8090:8080"`, `"127.0.0.1:8090:8082"`, "admin listener"},
		{f, "POSTGRES_PASSWORD_FILE: /run/secrets/tidegate/superuser-password", "POSTGRES_PASSWORD: x", "secret in its environment"},
		{f, "source: data, target: /var/lib/tidegate/data, volume: {subpath: trial-2}", "source: data, target: /var/lib/tidegate/data, volume: {subpath: trial-1}", `sees "trial-1"`},
		{f, "source: data, target: /var/lib/tidegate/data, volume: {subpath: trial-2}", "source: data, target: /var/lib/tidegate/data", `sees ""`},
		{f, "read_only: true, volume: {subpath: trial-2}", "volume: {subpath: trial-2}", "may change its secrets"},
		{f, "{type: volume, source: anchors, target: /var/lib/tidegate/anchors}", "{type: volume, source: root, target: /var/lib/tidegate/anchors}", "sees the root key"},
		{f, "{type: volume, source: anchors, target: /var/lib/tidegate/anchors}", "{type: bind, source: /etc, target: /var/lib/tidegate/anchors}", "of the machine itself"},
		{f, "file: config/trial.yaml", "file: config/trail.yaml", "trail.yaml"},
		{f, "source: standby, target", "source: standbye, target", "standbye"},
		{"compose/secrets.sh", "trial-1 trial-2 projector-1", "trial-1 projector-1", "makes keys for"},
	} {
		_, p := Compose(t.Context(), broken(t, c))
		said(t, c, p)
	}
}

func TestBrokenKubernetes(t *testing.T) {
	const (
		g, tr, n = "kubernetes/gateway.yaml", "kubernetes/trial.yaml", "kubernetes/network.yaml"
		k        = "kubernetes/kustomization.yaml"
	)
	for _, c := range []change{
		{g, "terminationGracePeriodSeconds", "terminationGracePeriodSecond", "unknown field"},
		{g, "replicas: 2", "replicas: two", "cannot unmarshal"},
		{g, "apps/v1", "apps/v1beta2", "no check knows this kind"},
		{g, "replicas: 2", "replicas: 1", "no second pod"},
		{k, "newTag: v0.4.0", "newTag: latest", "names no version"},
		{k, "  - migrate.yaml\n", "  - migrat.yaml\n", "kustomize"},
		{k, "  - ../config\n", "", "is in no ConfigMap"},
		{k, "postgresURL=", "postgresUrl=", "postgresURL of ConfigMap"},
		{k, "namespace: tidegate\n", "", "is in namespace"},
		{g, "runAsUser: 65532", "runAsUser: 0", "does not run as"},
		{g, "runAsNonRoot: true", "runAsNonRoot: false", "does not run as"},
		{g, "seccompProfile: {type: RuntimeDefault}", "seccompProfile: {type: Unconfined}", "seccomp"},
		{g, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "is not closed"},
		{g, "drop: [ALL]", "drop: [NET_RAW]", "is not closed"},
		{g, "fsGroupChangePolicy: OnRootMismatch", "fsGroupChangePolicy: Always", "OnRootMismatch"},
		{g, "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"},
		{g, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "gets a token"},
		{g, "serviceAccountName: tidegate", "serviceAccountName: tidegates", "account"},
		{g, `limits: {cpu: "2", memory: 512Mi}`, `limits: {cpu: "2"}`, "no memory"},
		{g, "path: /readyz", "path: /ready", "readiness probe"},
		{g, "livenessProbe:\n            httpGet: {path: /healthz, port: admin}", "livenessProbe:\n            httpGet: {path: /healthz, port: http}", "liveness probe"},
		{g, "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 15", "clean stop"},
		{g, "containerPort: 8080", "containerPort: 8000", "listens on"},
		{tr, "            - {name: rpc, containerPort: 8081}\n", "", "Service tidegate-trial-pods: port rpc"},
		{g, "targetPort: http}", "targetPort: https}", "leads to https"},
		{g, "serve, gateway, --config", "serve, trial, --config", "runs [serve trial"},
		{g, "/etc/tidegate/gateway.yaml", "/etc/tidegate/tidegate.yaml", "is in no ConfigMap"},
		{g, ", subPathExpr: $(POD_NAME)", "", "keys of its own pod alone"},
		{g, "{name: tmp, mountPath: /tmp}", "{name: keys, mountPath: /tmp}", "keys of every pod"},
		{g, "{name: tmp, mountPath: /tmp}", "{name: temp, mountPath: /tmp}", "volume temp"},
		{g, "serviceName: tidegate-gateway-pods", "serviceName: tidegate-gateway", "no headless service"},
		{g, "kind: PodDisruptionBudget\nmetadata:\n  name: tidegate-gateway\n", "kind: PodDisruptionBudget\nmetadata:\n  name: tidegate-gate\n", "has no PodDisruptionBudget"},
		{g, "unhealthyPodEvictionPolicy: AlwaysAllow\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: tidegate\n      app.kubernetes.io/component: gateway", "selector:\n    matchLabels:\n      app.kubernetes.io/name: tidegate", "PodDisruptionBudget tidegate-gateway is for"},
		{g, "  selector:\n    app.kubernetes.io/name: tidegate\n    app.kubernetes.io/component: gateway\n  ports:\n    - {name: http", "  selector:\n    app.kubernetes.io/component: gate\n  ports:\n    - {name: http", "Service tidegate-gateway finds"},
		{n, "podSelector: {}\n  policyTypes: [Ingress, Egress]", "podSelector: {}\n  policyTypes: [Ingress]", "denies"},
		{n, "port: 8082", "port: 8083", "reach port admin"},
		{n, "port: 8080", "port: 8443", "opens port 8443"},
		{n, "app.kubernetes.io/component: trial}\n      ports", "app.kubernetes.io/component: trail}\n      ports", "pods that are not there"},
		{n, "    - from:\n        - namespaceSelector:\n            matchLabels: {kubernetes.io/metadata.name: monitoring}\n      ports:", "    - ports:", "lets in everybody"},
		{n, "matchLabels: {app.kubernetes.io/name: tidegate, app.kubernetes.io/component: trial}\n  policyTypes", "matchLabels: {app.kubernetes.io/component: other}\n  policyTypes", "is for no pod"},
		{"kubernetes/namespace.yaml", "enforce: restricted", "enforce: baseline", "restricted"},
		{"kubernetes/migrate.yaml", "capabilities: {drop: [ALL]}", "privileged: true", "is not closed"},
	} {
		_, p := Kubernetes(broken(t, c))
		said(t, c, p)
	}
}

func TestBrokenConfig(t *testing.T) {
	program, have := binary(t), secrets(t)
	for _, c := range []change{
		{"config/gateway.yaml", "passwordFile:", "passwordfile:", "passwordfile"},
		{"config/trial.yaml", "certKey:", "keyFile:", "keyFile"},
		{"config/projector.yaml", "require: sync-replica", "require: very", "durability.require"},
		{"config/one-machine.yaml", "admin: 127.0.0.1:8082", "admin: 8082", "admin"},
		{"config/gateway.yaml", "key: /run/secrets/tidegate/tls.key", "key: /run/secrets/tidegate/other.key", "other.key"},
		{"compose.yaml", "TIDEGATE_TRIAL_ADVERTISE: \"trial-2", "TIDEGATE_TRIAL_ADVERTIZE: \"trial-2", "TIDEGATE_TRIAL_ADVERTIZE"},
		{"kubernetes/gateway.yaml", "TIDEGATE_ETCD_ENDPOINTS", "TIDEGATE_ETCD_HOSTS", "TIDEGATE_ETCD_HOSTS"},
		{"kubernetes/trial.yaml", "value: $(POD_NAME).tidegate-trial-pods.$(POD_NAMESPACE).svc:8081", "value: nowhere", "trial.advertise"},
	} {
		var p problems
		for _, r := range allRuns(t, broken(t, c)) {
			if p = append(p, Config(t.Context(), program, have, t.TempDir(), []run{r})...); len(p) > 0 {
				break // the others are as they were
			}
		}
		said(t, c, p)
	}
}

func TestBrokenSystemd(t *testing.T) {
	const f = "systemd/tidegate.service"
	for _, c := range []change{
		{f, "TimeoutStopSec=20", "TimeoutStopSec=10", "TimeoutStopSec"},
		{f, "User=tidegate\n", "", "User"},
		{f, "ProtectSystem=strict", "ProtectSystem=full", "ProtectSystem"},
		{f, "LimitNOFILE=65536\n", "", "LimitNOFILE"},
		{"systemd/tidegate@.service", "Restart=on-failure", "Restart=always", "Restart"},
	} {
		said(t, c, Systemd(broken(t, c)))
	}
	systemd, program := analyze(t), binary(t)
	for _, c := range []change{
		{f, "ExecStart=/usr/bin/tidegate ", "ExecStart=tidegate-server ", "systemd-analyze verify"},
		{f, "RestartSec=2", "RestartSeconds=2", "RestartSeconds"},
		{f, "Restart=on-failure", "Restart=on-failing", "on-failing"},
		{"systemd/tidegate@.service", "[Unit]", "[Units]", "Units"},
		{f, "CapabilityBoundingSet=\n", "CapabilityBoundingSet=~\n", "systemd-analyze security"},
	} {
		said(t, c, SystemdVerify(t.Context(), systemd, broken(t, c), program, t.TempDir()))
	}
}
