package check

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	corev1 "k8s.io/api/core/v1"
)

func is(b *bool) bool { return b != nil && *b }

// pod checks what makes a pod safe to run and to stop.
func (p *problems) pod(c *cluster, w *workload) {
	bad := func(format string, args ...any) { p.add(w.name+": "+format, args...) }
	s := &w.template.Spec
	if quiet, known := c.accounts[s.ServiceAccountName]; !known || !quiet || s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken {
		bad("gets a token of the Kubernetes API, or has no account of its own")
	}
	if s.EnableServiceLinks == nil || *s.EnableServiceLinks {
		bad("enableServiceLinks must be false: a variable TIDEGATE_…_SERVICE_HOST is no setting, and refused")
	}
	if s.HostNetwork || s.HostPID || s.HostIPC {
		bad("is not apart from its node")
	}
	sc := s.SecurityContext
	if sc == nil || !is(sc.RunAsNonRoot) || sc.RunAsUser == nil || sc.RunAsGroup == nil || fmt.Sprintf("%d:%d", *sc.RunAsUser, *sc.RunAsGroup) != user {
		bad("does not run as %s", user)
	}
	if sc == nil || sc.SeccompProfile == nil || sc.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		bad("has no seccomp profile")
	}
	volumes := map[string]bool{}
	for _, v := range s.Volumes {
		volumes[v.Name] = true
		if v.HostPath != nil {
			bad("mounts %s of its node", v.HostPath.Path)
		}
	}
	if w.set != nil {
		for _, v := range w.set.Spec.VolumeClaimTemplates {
			volumes[v.Name] = true
		}
		// Kept keys would be opened to the group at each mount.
		if sc == nil || sc.FSGroupChangePolicy == nil || *sc.FSGroupChangePolicy != corev1.FSGroupChangeOnRootMismatch {
			bad("fsGroupChangePolicy must be OnRootMismatch: otherwise the keys are opened to the group, and refused")
		}
	}
	for i := range s.InitContainers {
		p.container(w, &s.InitContainers[i], volumes)
	}
	for i := range s.Containers {
		p.container(w, &s.Containers[i], volumes)
	}
	if w.set != nil {
		p.served(c, w)
	}
}

// container checks one container of a pod.
func (p *problems) container(w *workload, k *corev1.Container, volumes map[string]bool) {
	bad := func(format string, args ...any) { p.add(w.name+"/"+k.Name+": "+format, args...) }
	p.pinned(w.name+"/"+k.Name, k.Image)
	sc := k.SecurityContext
	if sc == nil || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation || !is(sc.ReadOnlyRootFilesystem) || is(sc.Privileged) ||
		sc.Capabilities == nil || !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(sc.Capabilities.Add) > 0 {
		bad("is not closed: readOnlyRootFilesystem, no privilege escalation and no capabilities are wanted")
	}
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if k.Resources.Requests[r] == (corev1.ResourceList{})[r] || k.Resources.Limits[r] == (corev1.ResourceList{})[r] {
			bad("asks for no %s, or has no limit of it", r)
		}
	}
	for _, m := range k.VolumeMounts {
		if !volumes[m.Name] {
			bad("mounts volume %s, which is not there", m.Name)
		}
	}
	for _, e := range k.Env {
		if secretName.MatchString(e.Name) || e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			bad("has a secret in its environment: %s", e.Name)
		}
	}
}

// stopGrace is what a clean stop may take, in seconds.
const stopGrace = 10

// served checks a role's pods: probes, ports, the time to stop, their keys.
func (p *problems) served(c *cluster, w *workload) {
	bad := func(format string, args ...any) { p.add(w.name+": "+format, args...) }
	k := w.role()
	ports := map[string]int32{}
	for _, port := range k.Ports {
		ports[port.Name] = port.ContainerPort
	}
	for what, probe := range map[string]struct {
		*corev1.Probe
		path string
	}{"startup": {k.StartupProbe, "/healthz"}, "liveness": {k.LivenessProbe, "/healthz"}, "readiness": {k.ReadinessProbe, "/readyz"}} {
		if probe.Probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != probe.path || ports[probe.HTTPGet.Port.StrVal] != ports["admin"] {
			bad("its %s probe does not ask %s of the admin port", what, probe.path)
		}
	}
	before := int64(0)
	if k.Lifecycle != nil && k.Lifecycle.PreStop != nil && k.Lifecycle.PreStop.Sleep != nil {
		before = k.Lifecycle.PreStop.Sleep.Seconds
	}
	if grace := w.template.Spec.TerminationGracePeriodSeconds; grace == nil || *grace < before+stopGrace+5 {
		bad("terminationGracePeriodSeconds leaves no %d s for a clean stop after %d s of waiting", stopGrace, before)
	}
	if len(k.Args) < 2 || k.Args[0] != "serve" || "tidegate-"+k.Args[1] != w.name {
		bad("runs %v", k.Args)
	}
	p.keys(w)
	if len(k.Args) == 4 {
		p.addresses(w, k.Args[1], p.mounted(c, w, k, k.Args[3]), ports)
	}
}

// keys checks that a pod gets its own keys only, and that nothing but the
// container that installs them sees the secret.
func (p *problems) keys(w *workload) {
	bad := func(format string, args ...any) { p.add(w.name+": "+format, args...) }
	s := &w.template.Spec
	installs := false
	for _, k := range s.InitContainers {
		for _, m := range k.VolumeMounts {
			installs = installs || m.Name == "keys" && m.SubPathExpr == "$(POD_NAME)" && m.ReadOnly && slices.Contains(k.Args, m.MountPath)
		}
	}
	if !installs {
		bad("no init container installs the keys of its own pod alone")
	}
	for _, k := range s.Containers {
		for _, m := range k.VolumeMounts {
			if m.Name == "keys" {
				bad("%s sees the keys of every pod", k.Name)
			}
		}
	}
	if replicas := w.set.Spec.Replicas; replicas == nil || *replicas < 2 {
		bad("has no second pod")
	}
}

// addresses checks that the ports of a pod are those that the role listens on.
func (p *problems) addresses(w *workload, role, text string, ports map[string]int32) {
	var cfg struct{ HTTP, RPC, Admin string }
	if err := yaml.Unmarshal([]byte(text), &cfg); err != nil {
		p.add("%s: %v", w.name, err)
		return
	}
	want := map[string]int32{}
	for name, addr := range map[string]string{"http": cfg.HTTP, "rpc": cfg.RPC, "admin": cfg.Admin} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			continue // not served, or refused by config check
		}
		if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
			p.add("%s: %s listens on %s, which nobody else reaches", w.name, name, addr)
		}
		n, _ := strconv.ParseInt(port, 10, 32)
		want[name] = int32(n)
	}
	if fmt.Sprint(want) != fmt.Sprint(ports) {
		p.add("%s: has ports %v, %s.yaml listens on %v", w.name, ports, strings.TrimSpace(role), want)
	}
}
