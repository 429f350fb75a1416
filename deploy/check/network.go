package check

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// selected are the workloads whose pods a selector finds.
func (c *cluster) selected(s *metav1.LabelSelector) (names []string) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	for _, w := range c.workloads {
		if selector.Matches(labels.Set(w.template.Labels)) {
			names = append(names, w.name)
		}
	}
	return names
}

// selectors checks that whatever selects pods finds those it is for.
func (p *problems) selectors(c *cluster) {
	budgets := map[string]bool{}
	for _, b := range c.budgets {
		found := c.selected(b.Spec.Selector)
		if len(found) != 1 || found[0] != b.Name || b.Spec.MaxUnavailable == nil && b.Spec.MinAvailable == nil {
			p.add("PodDisruptionBudget %s is for %v", b.Name, found)
		}
		budgets[b.Name] = true
	}
	headless := map[string][]string{}
	for _, s := range c.services {
		found := c.selected(&metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		if len(found) != 1 {
			p.add("Service %s finds the pods of %v", s.Name, found)
			continue
		}
		if s.Spec.ClusterIP == "None" {
			headless[s.Name] = found
		}
		for _, port := range s.Spec.Ports {
			if !c.hasPort(found[0], port.TargetPort) {
				p.add("Service %s: port %s leads to %s, which %s does not have", s.Name, port.Name, port.TargetPort.String(), found[0])
			}
		}
	}
	for _, w := range c.workloads {
		if w.set == nil {
			continue
		}
		if !slices.Equal(c.selected(w.set.Spec.Selector), []string{w.name}) {
			p.add("%s: selects the pods of %v", w.name, c.selected(w.set.Spec.Selector))
		}
		if !slices.Equal(headless[w.set.Spec.ServiceName], []string{w.name}) {
			p.add("%s: its serviceName %s is no headless service of its pods", w.name, w.set.Spec.ServiceName)
		}
		if !budgets[w.name] {
			p.add("%s: has no PodDisruptionBudget", w.name)
		}
	}
}

func (c *cluster) hasPort(workload string, port intstr.IntOrString) bool {
	for _, w := range c.workloads {
		if w.name != workload {
			continue
		}
		for _, have := range w.role().Ports {
			if port.Type == intstr.String && have.Name == port.StrVal || port.Type == intstr.Int && have.ContainerPort == port.IntVal {
				return true
			}
		}
	}
	return false
}

// network checks that nothing is open that no policy names, and that each
// policy names what is there.
func (p *problems) network(c *cluster) {
	denied := false
	reached := map[string][]int32{} // ports that some policy lets others reach
	for _, n := range c.policies {
		found := c.selected(&n.Spec.PodSelector)
		if len(found) == 0 {
			p.add("NetworkPolicy %s is for no pod", n.Name)
		}
		if len(n.Spec.PodSelector.MatchLabels)+len(n.Spec.PodSelector.MatchExpressions)+len(n.Spec.Ingress)+len(n.Spec.Egress) == 0 && len(n.Spec.PolicyTypes) == 2 {
			denied = true
		}
		for _, in := range n.Spec.Ingress {
			if len(in.From) == 0 || len(in.Ports) == 0 {
				p.add("NetworkPolicy %s lets in everybody, or to every port", n.Name)
			}
			p.peers(c, n.Name, in.From)
			for _, port := range in.Ports {
				for _, w := range found {
					reached[w] = append(reached[w], port.Port.IntVal)
				}
			}
		}
		for _, out := range n.Spec.Egress {
			p.peers(c, n.Name, out.To)
			if len(out.Ports) == 0 {
				p.add("NetworkPolicy %s lets out to every port", n.Name)
			}
		}
	}
	if !denied {
		p.add("no NetworkPolicy denies what the others do not name")
	}
	for _, w := range c.workloads {
		for _, port := range w.role().Ports {
			if !slices.Contains(reached[w.name], port.ContainerPort) {
				p.add("%s: no NetworkPolicy lets anybody reach port %s", w.name, port.Name)
			}
		}
		for _, port := range reached[w.name] {
			if w.set != nil && !c.hasPort(w.name, intstr.FromInt32(port)) {
				p.add("%s: a NetworkPolicy opens port %d, which it does not have", w.name, port)
			}
		}
	}
}

func (p *problems) peers(c *cluster, policy string, peers []networkingv1.NetworkPolicyPeer) {
	for _, peer := range peers {
		if peer.PodSelector != nil && peer.NamespaceSelector == nil && len(c.selected(peer.PodSelector)) == 0 {
			p.add("NetworkPolicy %s names pods that are not there", policy)
		}
	}
}
