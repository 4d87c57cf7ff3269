package kube

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-net/fairlead/model"
)

// policyLines writes NetworkPolicies as lines of JSON, as policyObjectOf has them. The
// maps of that are 20 kB of garbage for each, and agents write all of them whenever one
// has changed.
type policyLines struct{ line []byte }

// policyTypes are the names of directions, sorted.
var policyTypes = [...]struct {
	model.Direction
	name networkingv1.PolicyType
}{{model.Egress, networkingv1.PolicyTypeEgress}, {model.Ingress, networkingv1.PolicyTypeIngress}}

// write returns the line of a policy, which is good until the next call.
func (w *policyLines) write(p *model.Policy) ([]byte, error) {
	if slices.ContainsFunc(p.Rules[model.Ingress], wordless) || slices.ContainsFunc(p.Rules[model.Egress], wordless) || never(&p.Pods) {
		text, err := json.Marshal(policyObjectOf(p))
		return append(text, '\n'), err
	}
	b := append(w.line[:0], `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"namespace":`...)
	b = appendText(b, p.Namespace)
	b = appendText(append(b, `,"name":`...), p.Name)
	b = appendSelector(append(b, `},"spec":{"podSelector":`...), &p.Pods)
	b = append(b, `,"policyTypes":[`...)
	types := 0
	for _, d := range policyTypes {
		if p.Isolates[d.Direction] {
			b = appendText(separated(b, types), string(d.name))
			types++
		}
	}
	b = append(b, ']')
	for _, d := range model.Directions {
		if p.Isolates[d] && len(p.Rules[d]) > 0 {
			b = append(appendText(append(b, ','), ruleLists[d]), ":["...)
			for i := range p.Rules[d] {
				b = appendRule(separated(b, i), &p.Rules[d][i], peerLists[d])
			}
			b = append(b, ']')
		}
	}
	w.line = append(b, "}}\n"...)
	return w.line, nil
}

func appendRule(b []byte, r *model.PolicyRule, list string) []byte {
	b = append(b, '{')
	for i := range r.Peers {
		if i == 0 {
			b = append(appendText(b, list), ":["...)
		}
		b = appendPeer(separated(b, i), &r.Peers[i])
	}
	if len(r.Peers) > 0 {
		b = separated(append(b, ']'), len(r.Ports))
	}
	for i, port := range r.Ports {
		if i == 0 {
			b = append(b, `"ports":[`...)
		}
		b = appendPort(separated(b, i), port)
	}
	if len(r.Ports) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendPeer(b []byte, peer *model.Peer) []byte {
	if !peer.Block.IsValid() {
		b = appendSelector(append(b, `{"namespaceSelector":`...), peer.Namespaces)
		return append(appendSelector(append(b, `,"podSelector":`...), peer.Pods), '}')
	}
	b = appendPrefix(append(b, `{"ipBlock":{"cidr":`...), peer.Block)
	for i, except := range peer.Except {
		if i == 0 {
			b = append(b, `,"except":[`...)
		}
		b = appendPrefix(separated(b, i), except)
	}
	if len(peer.Except) > 0 {
		b = append(b, ']')
	}
	return append(b, "}}"...)
}

func appendPrefix(b []byte, prefix netip.Prefix) []byte {
	return append(prefix.AppendTo(append(b, '"')), '"')
}

func appendPort(b []byte, port model.PolicyPort) []byte {
	b = appendText(append(b, `{"protocol":`...), port.Protocol.String())
	switch {
	case port.Name != "":
		b = appendText(append(b, `,"port":`...), port.Name)
	case port.From != 0:
		b = strconv.AppendUint(append(b, `,"port":`...), uint64(port.From), 10)
		if port.To != port.From {
			b = strconv.AppendUint(append(b, `,"endPort":`...), uint64(port.To), 10)
		}
	}
	return append(b, '}')
}

// appendSelector is for one without requirements that were not understood.
func appendSelector(b []byte, s *model.Selector) []byte {
	if len(s.Requirements) == 0 {
		return append(b, "{}"...)
	}
	b = append(b, `{"matchExpressions":[`...)
	for i := range s.Requirements {
		r := &s.Requirements[i]
		b = appendText(append(separated(b, i), `{"key":`...), r.Key)
		b = appendText(append(b, `,"operator":`...), r.Operator.String())
		if len(r.Values) > 0 {
			b = append(b, `,"values":[`...)
			for j, value := range r.Values {
				b = appendText(separated(b, j), value)
			}
			b = append(b, ']')
		}
		b = append(b, '}')
	}
	return append(b, "]}"...)
}
