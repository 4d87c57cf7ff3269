package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Kinds of ends.
const (
	OfPod     = "pod"
	OfNode    = "node"    // and of pods of the host network
	OfService = "service" // only to
	Outside   = "outside" // of the cluster
)

// End is where a connection begins or ends.
type End struct {
	Kind      string       `json:"kind"`
	Name      string       `json:"name"` // NAMESPACE/NAME, or a node's, or the address
	Node      string       `json:"node,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// HostNetwork says that it was asked for as a pod, which has no other network
	// than its node's.
	HostNetwork bool `json:"hostNetwork,omitempty"`

	pod *model.Pod
}

// finder finds ends by what people call them.
type finder struct {
	*model.Snapshot
	namespace string // of what is named without
}

// find finds an end, but no Service.
func (f finder) find(name string) (End, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return f.at(addr.Unmap())
	}
	kind, rest, slash := strings.Cut(name, "/")
	switch {
	case !slash:
		return f.pod(model.PodKey{Namespace: f.namespace, Name: name})
	case slices.Contains([]string{"node", "nodes", "no"}, kind):
		return f.node(rest)
	case slices.Contains([]string{"pod", "pods", "po"}, kind):
		if namespace, pod, ok := strings.Cut(rest, "/"); ok {
			return f.pod(model.PodKey{Namespace: namespace, Name: pod})
		}
		return f.pod(model.PodKey{Namespace: f.namespace, Name: rest})
	}
	return f.pod(model.PodKey{Namespace: kind, Name: rest})
}

func (f finder) at(addr netip.Addr) (End, error) {
	if pod := podAt(f.Snapshot, addr); pod != nil {
		end := endOf(pod)
		end.Addresses = []netip.Addr{addr}
		return end, nil
	}
	if node := nodeAt(f.Snapshot, addr); node != nil {
		return End{Kind: OfNode, Name: node.Name, Node: node.Name, Addresses: []netip.Addr{addr}}, nil
	}
	if addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
		return End{}, &Untold{fmt.Sprintf("%s is no address that a connection has from one machine to another", addr), "name a pod, a node or another address"}
	}
	return End{Kind: Outside, Name: addr.String(), Addresses: []netip.Addr{addr}}, nil
}

func endOf(pod *model.Pod) End {
	return End{Kind: OfPod, Name: pod.String(), Node: pod.Node, Addresses: pod.Addresses, pod: pod}
}

func (f finder) pod(key model.PodKey) (End, error) {
	pod, ok := f.Pods.Get(key)
	describe := fmt.Sprintf("see why: kubectl -n %s describe pod %s", key.Namespace, key.Name)
	switch {
	case !ok:
		return End{}, f.noPod(key)
	case pod.Finished:
		return End{}, &Untold{fmt.Sprintf("pod %s has finished, and has no address any more", key), "name a pod that runs: kubectl -n " + key.Namespace + " get pods"}
	case len(pod.Addresses) == 0:
		return End{}, &Untold{fmt.Sprintf("pod %s has no address yet", key), describe}
	case pod.HostNetwork:
		return End{Kind: OfNode, Name: key.String(), Node: pod.Node, Addresses: pod.Addresses, HostNetwork: true}, nil
	}
	return endOf(pod), nil
}

// noPod says that there is no such pod, and where one of its name is.
func (f finder) noPod(key model.PodKey) error {
	var others []string
	for other := range f.Pods.All() {
		if other.Name == key.Name {
			others = append(others, other.String())
		}
	}
	slices.Sort(others)
	next := "kubectl get pods -A; another namespace is named with -n, a node as node/NAME, a Service as svc/NAME"
	if len(others) > 0 {
		next = "did you mean " + strings.Join(others[:min(len(others), 3)], " or ") + "?"
	}
	return &Untold{fmt.Sprintf("there is no pod %s", key), next}
}

func (f finder) node(name string) (End, error) {
	node, ok := f.Nodes.Get(name)
	switch {
	case !ok:
		return End{}, &Untold{"there is no node " + name, "kubectl get nodes"}
	case len(node.Addresses) == 0:
		return End{}, &Untold{fmt.Sprintf("node %s has no address", name), "give its kubelet --node-ip"}
	}
	return End{Kind: OfNode, Name: name, Node: name, Addresses: node.Addresses}, nil
}

// service finds svc/NAME, svc/NAMESPACE/NAME, and addresses of Services; nil if
// it is none.
func (f finder) service(name string) (*model.Service, []netip.Addr, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		addr = addr.Unmap()
		for _, s := range f.Services.All() {
			if slices.Contains(slices.Concat(s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs), addr) {
				return s, []netip.Addr{addr}, nil
			}
		}
		return nil, nil, nil
	}
	kind, rest, _ := strings.Cut(name, "/")
	if !slices.Contains([]string{"svc", "service", "services"}, kind) || rest == "" {
		return nil, nil, nil
	}
	key := model.ServiceKey{Namespace: f.namespace, Name: rest}
	if namespace, service, ok := strings.Cut(rest, "/"); ok {
		key = model.ServiceKey{Namespace: namespace, Name: service}
	}
	s, ok := f.Services.Get(key)
	if !ok {
		return nil, nil, &Untold{
			fmt.Sprintf("there is no Service %s that has an address", key),
			"fairlead service list -A; a headless one leads to its pods' own addresses: name a pod",
		}
	}
	return s, s.ClusterIPs, nil
}

// Port is what somebody asks for: 80, 80/udp, http, http/tcp, or icmp, which
// stands for all protocols without ports.
type Port struct {
	Protocol model.Protocol // 0: TCP, unless a Service has only another
	Number   uint16
	Name     string
}

// icmp is a protocol without ports, which policies treat as any other such.
const icmp model.Protocol = 1

// ParsePort reads one; the empty text is the only port that a Service has.
func ParsePort(text string) (port Port, err error) {
	if strings.EqualFold(text, "icmp") {
		return Port{Protocol: icmp}, nil
	}
	name, protocol, said := strings.Cut(text, "/")
	if said {
		if port.Protocol, err = model.ParseProtocol(protocol); err != nil {
			return port, &Untold{fmt.Sprintf("--port %s: %v", text, err), "write it as 80/tcp, http or icmp"}
		}
	}
	number, err := strconv.ParseUint(name, 10, 16)
	switch {
	case err == nil && number > 0:
		port.Number = uint16(number)
	case name == "" && !said:
	case name == "" || name[0] >= '0' && name[0] <= '9' || name[0] == '-':
		return port, &Untold{fmt.Sprintf("--port %s: %q is no port from 1 to 65535", text, name), "write it as 80/tcp, http or icmp"}
	default:
		port.Name = name
	}
	return port, nil
}

// of finds the number that a pod gives to a name; pod is nil of who has no names.
func (p Port) of(end End) (model.Protocol, uint16, error) {
	protocol := cmp.Or(p.Protocol, model.TCP)
	switch {
	case p.Name == "" && p.Number == 0 && p.Protocol != icmp:
		return 0, 0, &Untold{"no port is said", "--port 80/tcp; for pings --port icmp"}
	case p.Name == "":
		return protocol, p.Number, nil
	case end.pod == nil:
		return 0, 0, &Untold{fmt.Sprintf("port %s has a name, which %s does not know", p.Name, end.Name), "give its number"}
	}
	var names []string
	for _, port := range end.pod.Ports {
		if port.Name == p.Name && (p.Protocol == 0 || port.Protocol == p.Protocol) {
			return port.Protocol, port.Port, nil
		}
		names = append(names, port.Name)
	}
	what := "its containers name none"
	if len(names) > 0 {
		what = "its containers name " + strings.Join(names, ", ")
	}
	return 0, 0, &Untold{fmt.Sprintf("pod %s has no port %s: %s", end.Name, p.Name, what), "give its number"}
}
