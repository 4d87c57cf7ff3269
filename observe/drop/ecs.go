package drop

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// ecsVersion is the version of the Elastic Common Schema whose fields are used.
const ecsVersion = "8.17.0"

// event is a record in the fields of the Elastic Common Schema.
type event struct {
	Timestamp    time.Time         `json:"@timestamp"`
	Version      ecsName           `json:"ecs"`
	Message      string            `json:"message"`
	Event        ecsEvent          `json:"event"`
	Rule         *ecsRule          `json:"rule,omitempty"`
	Source       ecsEnd            `json:"source"`
	Destination  ecsEnd            `json:"destination"`
	Network      ecsNetwork        `json:"network"`
	Host         map[string]string `json:"host"`
	Observer     map[string]string `json:"observer"`
	Orchestrator ecsOrchestrator   `json:"orchestrator"`
	Labels       map[string]string `json:"labels,omitempty"`
}

type ecsName struct {
	Version string `json:"version"`
}

type ecsEvent struct {
	Kind     string   `json:"kind"`
	Category []string `json:"category"`
	Type     []string `json:"type"`
	Action   string   `json:"action"`
	Outcome  string   `json:"outcome"` // of the one who tells: that it was dropped succeeded
	Dataset  string   `json:"dataset"`
	Module   string   `json:"module"`
	Reason   string   `json:"reason"`
}

type ecsRule struct {
	Name     string `json:"name"`
	Ruleset  string `json:"ruleset"`
	Category string `json:"category,omitempty"` // the tier
}

type ecsEnd struct {
	Address string     `json:"address"`
	IP      netip.Addr `json:"ip"`
	Port    uint16     `json:"port,omitempty"`
	NAT     *ecsNAT    `json:"nat,omitempty"` // what it was translated to
}

type ecsNAT struct {
	IP   netip.Addr `json:"ip"`
	Port uint16     `json:"port,omitempty"`
}

type ecsNetwork struct {
	Type        string `json:"type"`
	IANANumber  string `json:"iana_number"`
	Transport   string `json:"transport"`
	Direction   string `json:"direction,omitempty"`
	CommunityID string `json:"community_id"`
}

type ecsOrchestrator struct {
	Type      string            `json:"type"`
	Cluster   map[string]string `json:"cluster,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	Resource  *ecsResource      `json:"resource,omitempty"`
}

type ecsResource struct {
	Type  string   `json:"type"`
	Name  string   `json:"name"`
	ID    string   `json:"id,omitempty"`
	IP    []string `json:"ip,omitempty"`
	Label []string `json:"label,omitempty"` // key:value
}

// ECS writes a record as one line of JSON, in the Elastic Common Schema. The
// orchestrator's resource is the pod whose policies have denied the packet; the
// other end is in labels. The name of the cluster may be empty.
func ECS(r *Record, cluster string) ([]byte, error) {
	subject := r.Subject()
	e := event{
		Timestamp: r.Time.UTC(), Version: ecsName{ecsVersion},
		Message: fmt.Sprintf("%s to %s %s dropped: %s", r.Source, r.Destination, r.Port(), r.Why()),
		Event: ecsEvent{
			Kind: "event", Category: []string{"network"}, Type: []string{"connection", "denied"},
			Action: "dropped", Outcome: "success", Dataset: "fairlead.drops", Module: "fairlead", Reason: r.Why(),
		},
		Source: ecsEndOf(r.Source), Destination: ecsEndOf(r.Destination), Network: r.ecsNetwork(),
		Host:         map[string]string{"name": r.Node},
		Observer:     map[string]string{"vendor": "Fairlead", "product": "Fairlead", "type": "firewall"},
		Orchestrator: ecsOrchestrator{Type: "kubernetes", Namespace: subject.Namespace},
		Labels:       r.ecsLabels(),
	}
	if cluster != "" {
		e.Orchestrator.Cluster = map[string]string{"name": cluster}
	}
	if subject.Pod != "" {
		e.Orchestrator.Resource = &ecsResource{
			Type: "pod", Name: subject.Pod, ID: subject.UID, IP: []string{subject.Address.String()}, Label: subject.pairs(":"),
		}
	}
	if r.Called.IsValid() {
		e.Destination = ecsEnd{
			Address: r.Called.Addr().String(), IP: r.Called.Addr(), Port: r.Called.Port(),
			NAT: &ecsNAT{r.Destination.Address, r.Destination.Port},
		}
	}
	if p := r.Policy; p != nil {
		e.Rule = &ecsRule{Name: "default deny", Ruleset: p.Object(), Category: p.Tier}
		if p.Rule > 0 {
			e.Rule.Name = p.RuleName()
		}
	}
	line, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write a drop as JSON: %w", err)
	}
	return append(line, '\n'), nil
}

func ecsEndOf(e End) ecsEnd { return ecsEnd{Address: e.Address.String(), IP: e.Address, Port: e.Port} }

func (r *Record) ecsNetwork() ecsNetwork {
	n := ecsNetwork{Type: "ipv4", Direction: r.Direction, Transport: strings.ToLower(r.Protocol)}
	if r.Source.Address.Is6() {
		n.Type = "ipv6"
	}
	packet := Packet{
		Source: r.Source.Address, Destination: r.Destination.Address, ICMP: r.ICMP,
		SourcePort: r.Source.Port, DestinationPort: r.Destination.Port, Protocol: protocolOf(r.Protocol),
	}
	if packet.Protocol == icmp6 {
		n.Transport = "ipv6-icmp"
	}
	n.IANANumber, n.CommunityID = strconv.Itoa(int(packet.Protocol)), packet.CommunityID()
	return n
}

// protocolOf is the inverse of protocolName.
func protocolOf(name string) model.Protocol {
	for _, protocol := range []model.Protocol{icmp4, icmp6, model.TCP, model.UDP, model.SCTP} {
		if protocolName(protocol) == name {
			return protocol
		}
	}
	number, _ := strconv.ParseUint(name, 10, 8)
	return model.Protocol(number)
}

// ecsLabels are what the schema has no field for.
func (r *Record) ecsLabels() map[string]string {
	labels := map[string]string{
		"source_namespace": r.Source.Namespace, "source_pod": r.Source.Pod,
		"destination_namespace": r.Destination.Namespace, "destination_pod": r.Destination.Pod,
		"source_labels": strings.Join(r.Source.pairs("="), ","), "destination_labels": strings.Join(r.Destination.pairs("="), ","),
		"service": r.Service,
	}
	if r.Nearest != nil {
		labels["nearest_allow"] = r.Nearest.Policy.String() + ", " + r.Nearest.Differs
	}
	maps.DeleteFunc(labels, func(_, value string) bool { return value == "" })
	return labels
}

func (e End) pairs(between string) (all []string) {
	for _, key := range slices.Sorted(maps.Keys(e.Labels)) {
		all = append(all, key+between+e.Labels[key])
	}
	return all
}
