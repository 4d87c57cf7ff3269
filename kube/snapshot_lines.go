package kube

import (
	"encoding/json"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-net/fairlead/model"
)

// podLines writes pods as lines of JSON, as podObjectOf has them. In a large cluster
// pods are nearly all of a snapshot, and this takes a twentieth of the time.
type podLines struct {
	line   []byte
	of     model.Labels
	labels []byte // of which the last pod was: its neighbours have them, too
}

// write returns the line of a pod, which is good until the next call.
func (w *podLines) write(p *model.Pod) []byte {
	b := append(w.line[:0], `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":`...)
	b = appendText(b, p.Namespace)
	b = appendText(append(b, `,"name":`...), p.Name)
	b = appendText(append(b, `,"uid":`...), p.UID.String())
	if p.Labels != (model.Labels{}) {
		if p.Labels != w.of || w.labels == nil {
			w.of, w.labels = p.Labels, appendLabels(w.labels[:0], p.Labels)
		}
		b = append(append(b, `,"labels":`...), w.labels...)
	}
	b = append(b, `},"spec":{"hostNetwork":`...)
	b = strconv.AppendBool(b, p.HostNetwork)
	if p.Node != "" {
		b = appendText(append(b, `,"nodeName":`...), p.Node)
	}
	if len(p.Ports) > 0 {
		b = append(b, `,"containers":[{"ports":[`...)
		for i, port := range p.Ports {
			b = appendText(append(separated(b, i), `{"name":`...), port.Name)
			b = appendText(append(b, `,"protocol":`...), port.Protocol.String())
			b = append(strconv.AppendUint(append(b, `,"containerPort":`...), uint64(port.Port), 10), '}')
		}
		b = append(b, `]}]`...)
	}
	b = append(b, `},"status":{"podIPs":[`...)
	b = appendAddresses(b, p.Addresses)
	b = append(b, ']')
	if p.Finished {
		b = appendText(append(b, `,"phase":`...), string(corev1.PodSucceeded))
	}
	w.line = append(b, "}}\n"...)
	return w.line
}

func separated(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

func appendAddresses(b []byte, all []netip.Addr) []byte {
	for i, addr := range all {
		b = append(addr.AppendTo(append(separated(b, i), `{"ip":"`...)), `"}`...)
	}
	return b
}

func appendLabels(b []byte, labels model.Labels) []byte {
	b = append(b, '{')
	first := 0
	for key, value := range labels.All() {
		b = appendText(separated(b, first), key)
		b = appendText(append(b, ':'), value)
		first++
	}
	return append(b, '}')
}

// appendText adds a string. Those of Kubernetes are plain, as a rule.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(text)
			if err != nil { // of no string
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}
