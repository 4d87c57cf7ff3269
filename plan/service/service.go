// Package service plans where the addresses of Services lead on one node: to
// which endpoints, from whom, and whose packets take an address of the node on
// the way. It is pure.
//
// What a Service means is Kubernetes' to say: KEP-1672 (terminating
// endpoints), KEP-2086 (internalTrafficPolicy), KEP-4444 (trafficDistribution),
// KEP-1669 (externalTrafficPolicy).
package service

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Plan says where addresses of Services lead. It is immutable.
type Plan struct {
	Frontends  model.Map[VIP, *Frontend]
	Backends   model.Map[Pool, *Backends]        // none is empty
	Serving    model.Map[Port, *Serving]         // of all ports of UDP
	ClusterIPs model.Map[netip.Addr, struct{}]   // refuse what is no frontend
	CIDRs      model.Map[netip.Prefix, struct{}] // drop what is neither; no two overlap
	Hairpins   model.Map[netip.Addr, struct{}]   // pods of this node, which may reach themselves by a Service
	Here       model.Map[netip.Addr, struct{}]   // addresses of this node itself
	Sysctls    model.Map[string, string]         // that node ports at 127.0.0.1 need, by path below /proc/sys

	// HealthChecks are what load balancers are told, by the port of TCP of the node,
	// at HealthAddresses: 0.0.0.0 and :: stand for all of their family.
	HealthChecks    model.Map[uint16, *HealthCheck]
	HealthAddresses model.Map[netip.Addr, struct{}]

	problems []model.Problem

	// What the next plan is made from.
	place       place
	services    model.Map[model.ServiceKey, *model.Service]
	slices      model.Map[model.SliceKey, *model.EndpointSlice]
	cidrs       model.Map[string, *model.ServiceCIDR]
	attachments model.Map[model.AttachmentKey, *model.Attachment]
	groups      model.Map[model.ServiceKey, *group]
	contests    model.Map[VIP, *contest]
	nodePorts   [len(model.Families)]int   // how many are wanted
	balancers   model.Map[netip.Addr, int] // addresses of load balancers, and of how many Services each is
	// Of the ports of HealthChecks, who wants them, and those that several want.
	checks        model.Map[uint16, *contest]
	checkContests model.Map[uint16, struct{}]
	// Holders are how many hold an address, of those that more than one do: two may,
	// for the moment that one takes it over from another.
	clusterHolders, podHolders model.Map[netip.Addr, int]
}

// VIP is an address and port that Services are reached at: a virtual one, or
// one of the node.
type VIP struct {
	Protocol model.Protocol
	At       netip.AddrPort
}

func (v VIP) String() string { return fmt.Sprintf("%s %s", v.Protocol, v.At) }

// Port is a port of a Service in one family.
type Port struct {
	Service model.ServiceKey
	Name    string // of the port, may be empty
	Family  model.Family
}

func (p Port) String() string {
	if p.Name == "" {
		return fmt.Sprintf("%s %s", p.Service, p.Family)
	}
	return fmt.Sprintf("%s:%s %s", p.Service, p.Name, p.Family)
}

// Pool names endpoints of a port that are chosen from: those of the cluster,
// or those of this node alone.
type Pool struct {
	Port
	Local bool
}

func (p Pool) String() string {
	if p.Local {
		return p.Port.String() + " local"
	}
	return p.Port.String()
}

// Backends are where new connections go, sorted.
type Backends struct {
	Targets []netip.AddrPort
	Sticky  uint32 // seconds for that a client stays with its target; 0: it does not
}

// Equal tells whether nothing differs.
func (b *Backends) Equal(other *Backends) bool {
	return b.Sticky == other.Sticky && slices.Equal(b.Targets, other.Targets)
}

// Serving are the endpoints that old connections may go on with, sorted. They
// may be more than those of the pools.
type Serving struct{ Targets []netip.AddrPort }

// Has tells whether a target is among them.
func (s *Serving) Has(target netip.AddrPort) bool {
	_, ok := slices.BinarySearchFunc(s.Targets, target, netip.AddrPort.Compare)
	return ok
}

// Kind is what a VIP is to its Service.
type Kind uint8

// The kinds. If several Services claim a VIP, the kind that stands first here
// has it: nobody takes a ClusterIP from another by naming it as an external one
// (CVE-2020-8554).
const (
	ClusterIP Kind = iota
	NodePort
	LoadBalancer
	ExternalIP
)

func (k Kind) String() string {
	return [...]string{"ClusterIP", "NodePort", "LoadBalancer", "ExternalIP"}[k]
}

// Frontend is what becomes of the first packet of a connection to a VIP.
type Frontend struct {
	Port   Port
	Kind   Kind
	Sticky uint32 // as of Backends
	// Inside is the answer to pods of the cluster and to this node itself,
	// Outside that to all others.
	Inside, Outside Answer
	Masquerade      Masquerade
	Ranges          []netip.Prefix // who may call; nil: all. No two overlap
}

// Special tells whether the answer depends on who asks.
func (f *Frontend) Special() bool { return f.Inside != f.Outside || f.Ranges != nil }

// Allows tells whether a client may call.
func (f *Frontend) Allows(client netip.Addr) bool {
	return f.Ranges == nil ||
		slices.ContainsFunc(f.Ranges, func(prefix netip.Prefix) bool { return prefix.Contains(client) })
}

// Equal tells whether nothing differs.
func (f *Frontend) Equal(other *Frontend) bool {
	return f.Port == other.Port && f.Kind == other.Kind && f.Sticky == other.Sticky &&
		f.Inside == other.Inside && f.Outside == other.Outside && f.Masquerade == other.Masquerade &&
		(f.Ranges == nil) == (other.Ranges == nil) && slices.Equal(f.Ranges, other.Ranges)
}

// Pool is where an answer of this frontend leads.
func (f *Frontend) Pool(a Answer) Pool { return Pool{f.Port, a.Local} }

// Answer is one of many targets, or none.
type Answer struct {
	Do    Action
	Local bool // which of the two pools; false unless Do is Forward
	Count int  // targets in the pool; 0 unless Do is Forward
}

// Action is what is done with a packet.
type Action uint8

// The actions.
const (
	Forward Action = iota + 1 // to a backend
	Reject                    // tell the client: there is no endpoint anywhere
	Drop                      // there are some, elsewhere: another node may be tried
)

func (a Answer) String() string {
	switch {
	case a.Do == Reject:
		return "reject"
	case a.Do == Drop:
		return "drop"
	case a.Local:
		return fmt.Sprintf("1 of %d local", a.Count)
	default:
		return fmt.Sprintf("1 of %d", a.Count)
	}
}

// Masquerade is whose packets take an address of the node on their way to a
// backend, so that answers come back the same way.
type Masquerade uint8

// Whose. Those of a pod that reaches itself do in any case.
const (
	FromOutside Masquerade = iota + 1 // of all but pods of the cluster
	FromAll
	FromNode // of this node itself
)

func (m Masquerade) String() string {
	return [...]string{"nobody", "outside", "all", "node"}[m]
}
