package kube

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// convertNetwork fills in defaults. A field that is wrong gets its default,
// too, and a Problem. The CRD's own validation lets few of these through, but
// it may be an older one, or missing.
func convertNetwork(object *v1alpha1.Network) converted[string, *model.Network] {
	spec := &object.Spec
	to := networkReader{name: object.Name, network: model.DefaultNetwork()}
	to.routing(spec)
	to.masquerade(&spec.Masquerade)
	to.services(&spec.Services)
	to.policy(&spec.Policy)
	to.dns(&spec.DNS)
	to.ingress(&spec.Ingress)
	to.foreignFirewall(spec.ForeignFirewall)
	for i, plugin := range spec.CNI.Plugins {
		to.plugin(fmt.Sprintf("spec.cni.plugins[%d]", i), plugin)
	}
	return converted[string, *model.Network]{key: object.Name, value: to.network, problems: to.problems}
}

// networkReader is a conversion in progress.
type networkReader struct {
	name     string
	network  *model.Network
	problems []model.Problem
}

func (r *networkReader) wrong(field, message string) {
	r.problems = append(r.problems, model.Problem{
		Kind: "Network", Name: r.name, Field: field, Reason: "Invalid", Message: message,
		Remedy: "correct it with kubectl edit networks.fairlead.io " + r.name,
	})
}

func (r *networkReader) routing(spec *v1alpha1.NetworkSpec) {
	to := &r.network.Routing
	switch backend := model.Backend(spec.Backend); {
	case backend == "":
	case slices.Contains(model.Backends[:], backend):
		to.Backend = backend
	default:
		r.wrong("spec.backend", fmt.Sprintf("%q is not a backend; %q are; %s is used", backend, model.Backends, to.Backend))
	}
	if spec.DirectRouting != nil {
		to.DirectRouting = *spec.DirectRouting
	}
	if mtu := spec.MTU; mtu == 0 || mtu >= 576 && mtu <= 65535 {
		to.MTU = int(mtu)
	} else {
		r.wrong("spec.mtu", fmt.Sprintf("%d is neither 0 nor between 576 and 65535 bytes", mtu))
	}
	switch vni := spec.VXLAN.VNI; {
	case vni >= 1 && vni < 1<<24:
		to.VXLANVNI = uint32(vni)
	case vni != 0:
		r.wrong("spec.vxlan.vni", fmt.Sprintf("%d is not between 1 and 16777215", vni))
	}
	r.port("spec.vxlan.port", spec.VXLAN.Port, &to.VXLANPort)
	r.port("spec.udp.port", spec.UDP.Port, &to.UDPPort)
}

func (r *networkReader) foreignFirewall(value string) {
	switch wanted := model.ForeignFirewall(value); wanted {
	case "":
	case model.AcceptInForeign, model.ReportForeign, model.IgnoreForeign:
		r.network.ForeignFirewall = wanted
	default:
		r.wrong("spec.foreignFirewall", fmt.Sprintf("%q is not Accept, Report or Ignore; %s is used", value, r.network.ForeignFirewall))
	}
}

func (r *networkReader) port(field string, port int32, to *uint16) {
	switch {
	case port >= 1 && port <= 65535:
		*to = uint16(port)
	case port != 0:
		r.wrong(field, fmt.Sprintf("%d is not between 1 and 65535", port))
	}
}

func (r *networkReader) masquerade(spec *v1alpha1.Masquerade) {
	to := &r.network.Masquerade
	for family, on := range map[model.Family]*bool{model.IPv4: spec.IPv4, model.IPv6: spec.IPv6} {
		if on != nil {
			to.On[family] = *on
		}
	}
	if spec.RandomPorts != nil {
		to.RandomPorts = *spec.RandomPorts
	}
	to.Exclude = r.prefixes("spec.masquerade.exclude", spec.Exclude)
	to.From = r.prefixes("spec.masquerade.from", spec.From)
}

func (r *networkReader) services(spec *v1alpha1.Services) {
	r.network.Services = model.Services{
		NodePortAddresses:  r.prefixes("spec.services.nodePortAddresses", spec.NodePortAddresses),
		LocalhostNodePorts: spec.LocalhostNodePorts,
		MasqueradeAll:      spec.MasqueradeAll,
	}
}

// The values of spec.policy.established.
const (
	keepEstablished = "keep"
	cutEstablished  = "cut"
)

func (r *networkReader) policy(spec *v1alpha1.Policy) {
	switch spec.Established {
	case "", keepEstablished:
	case cutEstablished:
		r.network.Policy.CutEstablished = true
	default:
		r.wrong("spec.policy.established", fmt.Sprintf("%q is neither %s nor %s; %s is used", spec.Established, keepEstablished, cutEstablished, keepEstablished))
	}
}

func (r *networkReader) ingress(spec *v1alpha1.Ingress) {
	r.network.Ingress.NginxCompatible, r.network.Ingress.HTTP3 = spec.NginxCompatible, spec.HTTP3
	if spec.ACME != nil {
		r.acme(spec.ACME)
	}
	for _, text := range spec.PublishAddresses {
		published := strings.ToLower(string(text))
		if addr, err := netip.ParseAddr(published); err == nil && addr.Zone() == "" {
			published = addr.Unmap().String()
		} else if labels := strings.Split(published, "."); len(validation.IsDNS1123Subdomain(published)) > 0 || isNumber(labels[len(labels)-1]) {
			r.wrong("spec.ingress.publishAddresses", fmt.Sprintf("%q is neither an address such as 192.0.2.1 nor the name of a host", text))
			continue
		}
		if !slices.Contains(r.network.Ingress.PublishAddresses, published) {
			r.network.Ingress.PublishAddresses = append(r.network.Ingress.PublishAddresses, published)
		}
	}
}

// isNumber tells whether a text has nothing but digits: no name ends in such a label
// (RFC 3696, section 2), and an address that is none does.
func isNumber(text string) bool { return strings.Trim(text, "0123456789") == "" }

func (r *networkReader) prefixes(field string, texts []v1alpha1.CIDR) (prefixes []netip.Prefix) {
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(string(text))
		if err != nil {
			r.wrong(field, fmt.Sprintf("%q is ignored: it is not a range of addresses such as 192.0.2.0/24", text))
			continue
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes
}

func (r *networkReader) plugin(field string, object runtime.RawExtension) {
	var plugin struct{ Type string }
	if err := json.Unmarshal(object.Raw, &plugin); err != nil || plugin.Type == "" {
		r.wrong(field, `it is left out: it has no type, which names the plugin's file, such as "type": "bandwidth"`)
		return
	}
	r.network.Plugins = append(r.network.Plugins, string(object.Raw))
}

// networkObjectOf is convertNetwork's inverse.
func networkObjectOf(n *model.Network) object {
	var plugins []json.RawMessage
	for _, plugin := range n.Plugins {
		plugins = append(plugins, json.RawMessage(plugin))
	}
	spec := routingObjectOf(&n.Routing)
	spec["masquerade"] = object{
		"ipv4": n.Masquerade.On[model.IPv4], "ipv6": n.Masquerade.On[model.IPv6],
		"randomPorts": n.Masquerade.RandomPorts,
		"exclude":     n.Masquerade.Exclude, "from": n.Masquerade.From,
	}
	if !n.Services.Equal(&model.Services{}) {
		spec["services"] = object{
			"nodePortAddresses":  n.Services.NodePortAddresses,
			"localhostNodePorts": n.Services.LocalhostNodePorts, "masqueradeAll": n.Services.MasqueradeAll,
		}
	}
	if n.Policy.CutEstablished {
		spec["policy"] = object{"established": cutEstablished}
	}
	if dns := dnsObjectOf(&n.DNS); dns != nil {
		spec["dns"] = dns
	}
	if !n.Ingress.Equal(&model.IngressOptions{}) {
		spec["ingress"] = ingressObjectOf(&n.Ingress)
	}
	if n.ForeignFirewall != "" {
		spec["foreignFirewall"] = n.ForeignFirewall
	}
	if plugins != nil {
		spec["cni"] = object{"plugins": plugins}
	}
	return object{
		"apiVersion": v1alpha1.GroupVersion().String(), "kind": "Network",
		"metadata": object{"name": v1alpha1.NetworkName},
		"spec":     spec,
	}
}

// routingObjectOf is the part of the spec that says how packets get from node
// to node.
func routingObjectOf(r *model.Routing) object {
	return object{
		"backend": r.Backend, "directRouting": r.DirectRouting, "mtu": r.MTU,
		"vxlan": object{"vni": r.VXLANVNI, "port": r.VXLANPort},
		"udp":   object{"port": r.UDPPort},
	}
}

// readRouting is routingObjectOf's inverse, and nil of nil.
func readRouting(from object) (*model.Routing, error) {
	if from == nil {
		return nil, nil
	}
	text, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	network := &v1alpha1.Network{}
	if err := json.Unmarshal(text, &network.Spec); err != nil {
		return nil, err
	}
	to := convertNetwork(network)
	if len(to.problems) > 0 {
		return nil, fmt.Errorf("%s: %s", to.problems[0].Field, to.problems[0].Message)
	}
	return &to.value.Routing, nil
}
