package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

func scenes() []scene {
	all := slicesOf(general(), policies(), terminating(), balancers())
	return append(all, rivals(len(all))...)
}

// rivals claim what others have, those of the same slot by Services that are older
// than them. Who has an address keeps it.
func rivals(first int) []scene {
	created := func(s *corev1.Service, n int) { s.CreationTimestamp = metav1.Unix(1_700_000_000+int64(n), 0) }
	return []scene{
		{"the oldest", func(s *corev1.Service) { created(s, 1) }, "pod2", []flow{
			{"a stranger", "ClusterIP", "pod2 see the node"},
			{"a stranger", "balancer", "pod2 see the node"},
			{"a stranger", "node port", "pod2 see the node"},
			{"a stranger", "external IP", "pod2 see the node"},
		}},
		{"one that claims its ClusterIP and its load balancer", func(s *corev1.Service) {
			created(s, 2)
			own, outer := clusterIPs(first, 0), outerIPs(first, 0)
			for i := range 2 {
				s.Spec.ExternalIPs[i], s.Status.LoadBalancer.Ingress[i].IP = own[i].String(), outer[i].String()
			}
		}, "pod3", []flow{{"pod 1", "ClusterIP", "pod3 see the client"}, {"pod 1", "balancer 2", "pod3 see the node"}}},
		{"one that claims its node port", func(s *corev1.Service) {
			created(s, 0)
			s.Spec.Ports[0].Port = nodePort(first, 0, 0)
			s.Spec.ExternalIPs = []string{nodeAt(0)[0].String(), nodeAt(0)[1].String()}
		}, "far0", []flow{{"pod 1", "node port", "far0 see the node"}, {"pod 1", "ClusterIP", "refused"}}},
	}
}

func slicesOf(all ...[]scene) (scenes []scene) {
	for _, some := range all {
		scenes = append(scenes, some...)
	}
	return scenes
}

// general: addresses, ports and protocols.
func general() []scene {
	return []scene{
		{"no endpoint", nil, "", refusedAll()},
		{"one endpoint", nil, "pod0", []flow{
			{"pod 1", "ClusterIP", "pod0 see the client"},
			{"pod 0", "ClusterIP", "pod0 see the node"}, // it reaches itself
			{"pod 0", "balancer", "pod0 see the node"},
			{"pod 0", "node port", "pod0 see the node"},
			{"the node", "ClusterIP", "pod0 see the node"},
			{"pod 1", "ClusterIP port 443/TCP", "refused"},
			{"a stranger", "ClusterIP port 443/TCP", "refused"},
			{"pod 1", "ClusterIP port 80/UDP", "refused"},
			{"pod 1", "no Service", "silence"},
			{"the node", "no Service", "silence"},
			{"a stranger", "no Service", "silence"},
			{"pod 1", "balancer port 443/TCP", "silence"}, // other ports of such addresses are not the node's
			{"a stranger", "external IP port 443/TCP", "silence"},
		}},
		{"several ports", func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80},
				{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443},
				{Name: "dns-udp", Protocol: corev1.ProtocolUDP, Port: 53},
				{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53},
				{Name: "dns-sctp", Protocol: corev1.ProtocolSCTP, Port: 53},
			}
		}, "pod0 far0", []flow{
			{"pod 1", "ClusterIP", "pod0 far0 see the client"},
			{"pod 1", "ClusterIP port 443/TCP", "pod0:9001 far0:9001 see the client"},
			{"pod 1", "ClusterIP port 53/UDP", "pod0:9002 far0:9002 see the client"},
			{"pod 1", "ClusterIP port 53/TCP", "pod0:9003 far0:9003 see the client"},
			{"pod 1", "ClusterIP port 53/SCTP", "pod0:9000 far0:9000 see the client"},
			{"pod 1", "ClusterIP port 80/UDP", "refused"},
			{"pod 1", "ClusterIP port 443/SCTP", "refused"},
			{"a stranger", "balancer port 53/UDP", "pod0:9002 far0:9002 see the node"},
			{"another node", "external IP port 53/TCP", "pod0:9003 far0:9003 see the node"},
			{"a stranger", "node port", "refused"}, // it has none, as allocateLoadBalancerNodePorts has it
		}},
		{"endpoints of all kinds", nil, "pod2 far1 node away", []flow{
			{"pod 1", "ClusterIP", "pod2 far1 node away see the client"},
			{"a pod of another node", "ClusterIP", "pod2 far1 node away see the client"},
		}},
		{"node ports", func(s *corev1.Service) {
			s.Spec.Type, s.Status = corev1.ServiceTypeNodePort, corev1.ServiceStatus{}
		}, "pod2 far0", []flow{
			{"pod 1", "ClusterIP", "pod2 far0 see the client"},
			{"a stranger", "node port", "pod2 far0 see the node"},
			{"the node", "node port", "pod2 far0 see the node"},
			{"a stranger", "second node port", "refused"},
			{"a stranger", "balancer", "silence"},
		}},
		{"no node ports", func(s *corev1.Service) {
			s.Spec.AllocateLoadBalancerNodePorts, s.Spec.Ports[0].NodePort = new(false), 0
		}, "pod2", []flow{{"a stranger", "node port", "refused"}, {"a stranger", "balancer", "pod2 see the node"}}},
		{"headless", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ServiceTypeClusterIP, corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
			s.Labels = map[string]string{corev1.IsHeadlessService: ""}
		}, "pod2", []flow{{"pod 1", "ClusterIP", "silence"}, {"a stranger", "external IP", "silence"}}},
		{"another program's", func(s *corev1.Service) {
			s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "another"}
		}, "pod2", []flow{{"pod 1", "ClusterIP", "silence"}, {"a stranger", "node port", "refused"}}},
		{"ExternalName", func(s *corev1.Service) {
			s.Spec, s.Status = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "elsewhere.example"}, corev1.ServiceStatus{}
		}, "", []flow{{"pod 1", "ClusterIP", "silence"}}},
	}
}

// policies: each way to a Service that leads everywhere, to this node alone from
// outside, or from inside, for each kind of client.
func policies() []scene {
	var everywhere, outside, inside []flow
	for _, from := range []string{"pod 1", "a pod of another node", "the node", "another node", "a stranger"} {
		pod, node := strings.HasPrefix(from, "pod") || strings.Contains(from, "pod"), from == "the node"
		see := map[bool]string{true: " see the client", false: " see the node"}
		everywhere = append(everywhere, flow{from, "ClusterIP", "pod2 far0" + see[pod]})
		outside = append(outside, flow{from, "ClusterIP", "pod2 far0" + see[pod]})
		inside = append(inside, flow{from, "ClusterIP", "pod2" + see[pod]})
		for _, to := range []string{"external IP", "balancer", "node port"} {
			everywhere = append(everywhere, flow{from, to, "pod2 far0 see the node"})
			inside = append(inside, flow{from, to, "pod2 far0 see the node"})
			if pod || node { // a short cut, which is as good as from any node
				outside = append(outside, flow{from, to, "pod2 far0" + see[!node]})
			} else {
				outside = append(outside, flow{from, to, "pod2 see the client"})
			}
		}
	}
	return []scene{
		{"both Cluster", nil, "pod2 far0", everywhere},
		{"external Local", local, "pod2 far0", outside},
		{"internal Local", inner, "pod2 far0", inside},
		{"external Local, one elsewhere", local, "far0", []flow{
			{"a stranger", "balancer", "silence"}, {"another node", "node port", "silence"}, {"a stranger", "external IP", "silence"},
			{"pod 1", "balancer", "far0 see the client"}, {"the node", "node port", "far0 see the node"}, {"a stranger", "ClusterIP", "far0 see the node"},
		}},
		{"internal Local, several here", inner, "pod2 pod3 far0", []flow{{"pod 1", "ClusterIP", "pod2 pod3 see the client"}}},
		{"internal Local, one elsewhere", inner, "far0", []flow{
			{"pod 1", "ClusterIP", "silence"}, {"the node", "ClusterIP", "silence"}, {"a stranger", "balancer", "far0 see the node"},
		}},
	}
}

// terminating: KEP-1672.
func terminating() []scene {
	return []scene{
		{"some are ready, Local", local, "pod0 pod2 pod3:leaving far0 far1:gone", []flow{
			{"pod 1", "ClusterIP", "pod0 pod2 far0 see the client"}, {"a stranger", "balancer", "pod0 pod2 see the client"},
		}},
		{"all are leaving here, Local", local, "pod2:leaving pod3:leaving pod0:gone far0", []flow{
			{"pod 1", "ClusterIP", "far0 see the client"}, {"a stranger", "balancer", "pod2 pod3 see the client"},
		}},
		{"all are leaving elsewhere, Local", local, "pod2:unready far0:leaving", []flow{
			{"pod 1", "ClusterIP", "far0 see the client"}, {"a stranger", "balancer", "silence"},
		}},
		{"none is usable, Local", local, "pod2:unready pod3:gone far0:gone far1:unready", []flow{
			{"pod 1", "ClusterIP", "refused"}, {"a stranger", "balancer", "refused"}, {"a stranger", "node port", "refused"},
		}},
		{"some are ready, Cluster", nil, "pod0 pod2 pod3:leaving far0 far1:gone", []flow{
			{"pod 1", "ClusterIP", "pod0 pod2 far0 see the client"}, {"a stranger", "balancer", "pod0 pod2 far0 see the node"},
		}},
		{"all are leaving, Cluster", nil, "pod2:leaving pod3:leaving pod0:gone far0:leaving", []flow{
			{"pod 1", "ClusterIP", "pod2 pod3 far0 see the client"}, {"a stranger", "balancer", "pod2 pod3 far0 see the node"},
		}},
		{"one is leaving elsewhere, Cluster", nil, "pod2:unready far0:leaving", []flow{
			{"pod 1", "ClusterIP", "far0 see the client"}, {"a stranger", "balancer", "far0 see the node"},
		}},
		{"none is usable, Cluster", nil, "pod2:unready pod3:gone far0:gone", []flow{
			{"pod 1", "ClusterIP", "refused"}, {"a stranger", "balancer", "refused"},
		}},
	}
}

// balancers: source ranges and modes of addresses.
func balancers() []scene {
	mode := func(mode corev1.LoadBalancerIPMode) func(*corev1.Service) {
		return func(s *corev1.Service) {
			for i := range 2 {
				s.Status.LoadBalancer.Ingress[i].IPMode = &mode
			}
		}
	}
	return []scene{
		{"source ranges", ranges, "pod2", []flow{
			{"pod 1", "ClusterIP", "pod2 see the client"},
			{"a stranger", "node port", "pod2 see the node"},
			{"another stranger", "node port", "pod2 see the node"}, // the ranges are not about node ports
			{"another stranger", "external IP", "pod2 see the node"},
			{"a stranger", "balancer", "pod2 see the node"},
			{"a stranger", "balancer 2", "pod2 see the node"},
			{"another stranger", "balancer", "silence"},
			{"another stranger", "balancer 2", "silence"},
			{"pod 1", "balancer", "silence"},
			{"pod 1", "balancer 2", "silence"},
			{"the node", "balancer", "pod2 see the node"},
			{"the node", "balancer 2", "pod2 see the node"},
		}},
		{"source ranges and no endpoint", ranges, "", []flow{
			{"a stranger", "balancer", "refused"}, {"another stranger", "balancer", "silence"}, {"another stranger", "node port", "refused"},
		}},
		{"ipMode Proxy", mode(corev1.LoadBalancerIPModeProxy), "pod2", []flow{
			{"pod 1", "balancer", "silence"}, {"pod 1", "balancer 2", "pod2 see the node"}, {"pod 1", "node port", "pod2 see the node"},
		}},
		{"ipMode VIP", mode(corev1.LoadBalancerIPModeVIP), "pod2", []flow{{"pod 1", "balancer", "pod2 see the node"}}},
		{"addresses with zeros in front", func(s *corev1.Service) {
			for _, text := range []*string{&s.Spec.ClusterIP, &s.Spec.ClusterIPs[0], &s.Spec.ExternalIPs[0], &s.Status.LoadBalancer.Ingress[0].IP} {
				parts := strings.Split(*text, ".")
				parts[3] = "0" + parts[3]
				*text = strings.Join(parts, ".")
			}
			s.Spec.LoadBalancerSourceRanges = []string{"198.051.100.000/025", "2001:db8:51::/49"}
		}, "pod2", []flow{
			{"pod 1", "ClusterIP", "pod2 see the client"}, {"a stranger", "balancer", "pod2 see the node"},
			{"another stranger", "balancer", "silence"}, {"another stranger", "external IP", "pod2 see the node"},
		}},
	}
}

// TestBalancerAsSource: a node that has the address of a load balancer itself
// calls from it, and may if the node may (kubernetes#109826).
func TestBalancerAsSource(t *testing.T) {
	p := newPlane(nil, config{})
	objects := scenery{scene{change: ranges, endpoints: "pod2"}, 0}.objects()
	if err := p.plan(objects); err != nil {
		t.Fatal(err)
	}
	for _, family := range model.Families {
		for variant := range 2 {
			vip := outerIPs(0, variant)[family]
			hop := plan.Verdict(p.oracle, plan.Packet{Source: vip, Destination: vip, Protocol: model.TCP, Port: 80})
			if hop.Pod.Addr() != podAt(0, 2)[family] || !hop.Masquerade {
				t.Errorf("from %s to itself: %+v", vip, hop)
			}
		}
	}
}

// TestFlowsMasqueradeAll: whoever calls a ClusterIP is seen as the node; nothing
// else is otherwise.
func TestFlowsMasqueradeAll(t *testing.T) {
	all := policies()[:3]
	for i := range all {
		for j := range all[i].flows {
			if f := &all[i].flows[j]; f.to == "ClusterIP" {
				f.want = strings.Replace(f.want, "the client", "the node", 1)
			}
		}
	}
	startBench(t, configs()[1]).play(t, nil, all)
}

// TestFlowsNodePortAddresses: node ports are where they are configured to be.
func TestFlowsNodePortAddresses(t *testing.T) {
	startBench(t, configs()[2]).play(t, nil, []scene{{"node ports at two addresses", nil, "pod2 far0", []flow{
		{"pod 1", "ClusterIP", "pod2 far0 see the client"},
		{"a stranger", "node port", "pod2 far0 see the node"},
		{"a stranger", "second node port", "pod2 far0 see the node"},
		{"the node", "node port", "pod2 far0 see the node"},
		{"the node", "second node port", "pod2 far0 see the node"},
	}}})
}
