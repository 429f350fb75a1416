package check

import (
	"fmt"
	"path/filepath"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// cluster is what the manifests make, as the Kubernetes API reads it.
type cluster struct {
	workloads []workload
	services  []corev1.Service
	configs   map[string]corev1.ConfigMap
	accounts  map[string]bool
	budgets   []policyv1.PodDisruptionBudget
	policies  []networkingv1.NetworkPolicy
	namespace *corev1.Namespace
}

// workload is what makes pods.
type workload struct {
	name     string
	job      bool
	set      *appsv1.StatefulSet // nil for a job
	template corev1.PodTemplateSpec
}

// role is the container that does the work.
func (w *workload) role() *corev1.Container { return &w.template.Spec.Containers[0] }

// build runs kustomize and decodes what it prints, refusing every field that
// the API does not know.
func build(deploy string) (c *cluster, p problems) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(deploy, "kubernetes"))
	if err != nil {
		p.add("kustomize: %v", err)
		return nil, p
	}
	c = &cluster{configs: map[string]corev1.ConfigMap{}, accounts: map[string]bool{}}
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err == nil {
			err = c.add(r.GetApiVersion()+" "+r.GetKind(), text)
		}
		if err != nil {
			p.add("%s %s: %v", r.GetKind(), r.GetName(), err)
		}
		if ns := r.GetNamespace(); r.GetKind() != "Namespace" && ns != "tidegate" {
			p.add("%s %s: is in namespace %q", r.GetKind(), r.GetName(), ns)
		}
	}
	return c, p
}

func strict[T any](text []byte, to *T) error { return yaml.UnmarshalStrict(text, to) }

func (c *cluster) add(kind string, text []byte) error {
	switch kind {
	case "apps/v1 StatefulSet":
		var s appsv1.StatefulSet
		if err := strict(text, &s); err != nil {
			return err
		}
		c.workloads = append(c.workloads, workload{name: s.Name, set: &s, template: s.Spec.Template})
	case "batch/v1 Job":
		var j batchv1.Job
		if err := strict(text, &j); err != nil {
			return err
		}
		c.workloads = append(c.workloads, workload{name: j.Name, job: true, template: j.Spec.Template})
	case "v1 Service":
		var s corev1.Service
		if err := strict(text, &s); err != nil {
			return err
		}
		c.services = append(c.services, s)
	case "v1 ConfigMap":
		var m corev1.ConfigMap
		if err := strict(text, &m); err != nil {
			return err
		}
		c.configs[m.Name] = m
	case "v1 ServiceAccount":
		var a corev1.ServiceAccount
		if err := strict(text, &a); err != nil {
			return err
		}
		c.accounts[a.Name] = a.AutomountServiceAccountToken != nil && !*a.AutomountServiceAccountToken
	case "policy/v1 PodDisruptionBudget":
		var b policyv1.PodDisruptionBudget
		if err := strict(text, &b); err != nil {
			return err
		}
		c.budgets = append(c.budgets, b)
	case "networking.k8s.io/v1 NetworkPolicy":
		var n networkingv1.NetworkPolicy
		if err := strict(text, &n); err != nil {
			return err
		}
		c.policies = append(c.policies, n)
	case "v1 Namespace":
		c.namespace = &corev1.Namespace{}
		return strict(text, c.namespace)
	default:
		return fmt.Errorf("no check knows this kind: add one to deploy/check")
	}
	return nil
}

// Kubernetes checks deploy/kubernetes and returns how its containers run
// tidegate with a configuration file.
func Kubernetes(deploy string) ([]run, problems) {
	c, p := build(deploy)
	if c == nil {
		return nil, p
	}
	if c.namespace == nil || c.namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		p.add("the namespace does not enforce the restricted Pod Security Standard")
	}
	var runs []run
	for i := range c.workloads {
		w := &c.workloads[i]
		p.pod(c, w)
		runs = append(runs, p.runs(c, w)...)
	}
	if len(runs) == 0 {
		p.add("no container reads a configuration file")
	}
	p.selectors(c)
	p.network(c)
	return runs, p
}

// runs lists the containers that read a configuration file, with the
// environment they get.
func (p *problems) runs(c *cluster, w *workload) (runs []run) {
	for _, k := range w.template.Spec.Containers {
		r := run{where: w.name, args: k.Args}
		for _, e := range k.Env {
			value := e.Value
			if from := e.ValueFrom; from != nil && from.ConfigMapKeyRef != nil {
				m, ok := c.configs[from.ConfigMapKeyRef.Name]
				if value = m.Data[from.ConfigMapKeyRef.Key]; !ok || value == "" {
					p.add("%s: %s is taken from %s of ConfigMap %s, which is not there", w.name, e.Name, from.ConfigMapKeyRef.Key, from.ConfigMapKeyRef.Name)
				}
			}
			r.environ = append(r.environ, e.Name+"="+strings.NewReplacer("$(POD_NAME)", w.name+"-0", "$(POD_NAMESPACE)", "tidegate").Replace(value))
		}
		for i, arg := range k.Args {
			if arg == "--config" && i+1 < len(k.Args) {
				r.text = p.mounted(c, w, &k, k.Args[i+1])
			}
		}
		if r.text != "" {
			runs = append(runs, r)
		}
	}
	return runs
}

// mounted is the content of a file that a container finds in a ConfigMap.
func (p *problems) mounted(c *cluster, w *workload, k *corev1.Container, path string) string {
	for _, m := range k.VolumeMounts {
		if m.MountPath != filepath.Dir(path) {
			continue
		}
		for _, v := range w.template.Spec.Volumes {
			if v.Name != m.Name || v.ConfigMap == nil {
				continue
			}
			if text := c.configs[v.ConfigMap.Name].Data[filepath.Base(path)]; text != "" {
				return text
			}
		}
	}
	p.add("%s: %s is in no ConfigMap that is mounted", w.name, path)
	return ""
}
