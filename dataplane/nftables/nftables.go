// Package nftables makes the kernel's packet filter do what a plan says: it
// translates addresses and drops what pods may not send. It does not route and
// decides nothing.
//
// What is ours: the table "inet fairlead", whole. No other table is touched,
// but for the marked rules of a Firewall.
// The table is written for administrators to read with nft list ruleset, and
// what nft 1.0.6 lists of it can be loaded again. Besides, connections are
// forgotten: those over UDP to host ports that now lead elsewhere, and pods' that
// look like those of a tunnel; and those that policies came to forbid, if they
// are to end.
//
// A Plane is for one goroutine at a time, but for its Run.
package nftables

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	nft "github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TableName is that of our table, of the family inet.
const TableName = "fairlead"

// Schema is the version of what the table holds, written in its comments. A
// table of any schema is replaced when a Plane first applies.
const Schema = 4

// Plane is the part of a data plane that translates and filters.
type Plane struct {
	known       bool   // the kernel holds rules and the actual sides of the mirrors
	unsupported string // what the kernel lacks, once that is known
	noSockets   bool   // it cannot tell whether somebody listens: see dns.go

	rules                   rules // as they are, or are about to be
	pods, cluster, excluded prefixes
	ports                   portMap
	hairpins                addressPairs
	sources                 sourceSet
	clusterIPs              addresses
	serviceCIDRs            prefixes
	serviceHairpins         addressPairs
	services                services
	policies                policies
	queries                 queries
	stale                   stale
	recalled                bool // what the table of the process before knew of flows
	cutter                  cutter
	link                    *link
	doubles                 []*nft.Chain // of chains, in a table that was just made: see undouble
	unlike                  bool         // the table that is there could not be made ours: it is removed as a whole
	beginning               beginning

	lost      atomic.Bool // someone has changed the table: see Run
	disturbed chan struct{}
}

// New returns a data plane for the network namespace of the thread that calls
// Apply.
func New() *Plane {
	p := &Plane{
		disturbed: make(chan struct{}, 1),
		beginning: beginning{done: make(chan struct{})},
		link:      newLink(),
		cutter:    cutter{wake: make(chan struct{}, 1)},

		pods:     newPrefixes("pods", "pods of this node "+schema(), "masquerade from"),
		cluster:  newPrefixes("cluster", "pods of all nodes", "masquerade not to"),
		excluded: newPrefixes("excluded", "destinations that see pods' own addresses", "masquerade not to"),
		ports:    newPortMap(),
		hairpins: newHairpins(),
		sources:  newSources(),

		clusterIPs:      newAddresses("cluster-ips", "addresses of Services, whose other ports are refused"),
		serviceCIDRs:    newPrefixes("service-cidrs", "where those are from", "service drop"),
		serviceHairpins: newPairs("service-hairpins", "pods of this node"),
		queries:         newQueries(),
		noSockets:       !knowsSockets(),
	}
	p.services = newServices(p.cluster.sets, p.clusterIPs.sets, p.serviceCIDRs.sets)
	p.policies.init()
	runtime.AddCleanup(p, func(link *link) { link.close() }, p.link)
	number := uint32(0)
	for _, mirror := range p.mirrors() {
		for _, set := range mirror.kernel() {
			number++
			set.ID, set.Table = number, ourTable()
		}
	}
	return p
}

// Guards tells whether the kernel has the rules, as far as the last Apply knows.
func (p *Plane) Guards() bool { return p.known }

func (p *Plane) mirrors() []mirror {
	return []mirror{&p.pods, &p.cluster, &p.excluded, &p.ports, &p.hairpins, &p.sources,
		&p.clusterIPs, &p.serviceCIDRs, &p.serviceHairpins, &p.services, &p.policies,
		&p.queries.at, &p.queries.here, &p.queries.own}
}

// Remove removes the table from the network namespace of the calling thread. It
// is no error if there is none, or a kernel without nftables. An Apply that
// follows starts anew.
func (p *Plane) Remove() error {
	p.known, p.rules, p.stale = false, rules{}, stale{}
	b, err := newBatch(inPieces)
	if err != nil {
		return fmt.Errorf("remove table inet %s: %w", TableName, err)
	}
	b.DelTable(ourTable())
	refused, err := b.send()
	for _, refusal := range refused {
		err = refusal.err
	}
	if err != nil && !unknown(err) {
		return fmt.Errorf("remove table inet %s: %w", TableName, err)
	}
	return nil
}

// Apply carries out the parts of a plan that translate and filter. See
// dataplane.Dataplane. What is in the table is not read back but replaced, in one
// transaction: reading large sets takes the kernel longer. See succeed.go.
func (p *Plane) Apply(ctx context.Context, node *plan.Node) ([]model.Problem, error) {
	if node.Masquerade == nil || node.HostPort == nil || node.AntiSpoof == nil || node.Service == nil || node.Policy == nil {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply table inet %s: %w", TableName, err)
	}
	if p.unsupported != "" {
		return []model.Problem{p.problem(node.Name)}, nil
	}
	if p.lost.Swap(false) {
		p.known = false
	}
	same := p.desire(node)
	if !p.recalled {
		p.recalled = true
		p.stale.served.recall(node.Service)
	}
	if !p.known || !same || p.pending() > 0 {
		if err := p.beginning.apply(func() error { return p.commit(same) }); err != nil {
			p.known = false
			if p.unsupported = missingFeature(); p.unsupported != "" {
				return []model.Problem{p.problem(node.Name)}, nil
			}
			return nil, fmt.Errorf("apply table inet %s: %w", TableName, err)
		}
	}
	problems := append(p.refused(node.Name), p.stale.forget(node.Name, &p.ports, node.Service)...)
	problems = append(problems, p.withoutSockets(node)...)
	return append(problems, p.cutter.follow(node)...), nil
}

// desire tells whether the rules stay the same.
func (p *Plane) desire(node *plan.Node) (same bool) {
	p.pods.Desire(node.Masquerade.Pods)
	p.cluster.Desire(node.Masquerade.Cluster)
	p.excluded.Desire(node.Masquerade.Excluded)
	p.ports.Desire(node.HostPort.Ports)
	p.hairpins.Desire(node.HostPort.Hairpins)
	p.sources.Desire(node.AntiSpoof.Sources)
	p.clusterIPs.Desire(node.Service.ClusterIPs)
	p.serviceCIDRs.Desire(node.Service.CIDRs)
	p.serviceHairpins.Desire(node.Service.Hairpins)
	p.services.Desire(node.Service)
	if p.policies.cut != node.Policy.CutEstablished {
		p.known = false // its chains come and go with a new table
	}
	p.policies.Desire(node.Policy)
	p.queries.desire(node.DNS)
	before := p.rules
	p.rules = rulesOf(node)
	p.stale.note(&p.ports, node.HostPort.Kept)
	if p.rules.tunnels != before.tunnels {
		p.stale.tunnels = p.rules.tunnels
	}
	return p.rules == before
}

func (p *Plane) pending() (entries int) {
	for _, mirror := range p.mirrors() {
		entries += mirror.Pending()
	}
	return entries
}

// commit carries out what differs: at once, but for policies, which change in
// steps.
func (p *Plane) commit(sameRules bool) error {
	for _, mirror := range p.mirrors() {
		mirror.retry()
	}
	if err := p.step(sameRules); err != nil {
		return err
	}
	for p.policies.more() {
		if err := p.step(true); err != nil {
			return err
		}
	}
	return nil
}

// step tries until the kernel takes all that it can. What it refuses is put
// aside; what shows that the table is not as it was left, is mended by a new
// table.
func (p *Plane) step(sameRules bool) error {
	for most := inPieces; ; most = oneByOne {
		refused, err := p.try(most, sameRules)
		if err != nil {
			return err
		}
		if len(refused) == 0 {
			break
		}
		if most == inPieces {
			continue
		}
		if p.known && tampered(refused) {
			p.known = false
			continue
		}
		if !p.known && !p.unlike && slices.ContainsFunc(refused, func(r refusal) bool { return r.aside == nil }) {
			p.unlike = true
			continue
		}
		for _, refusal := range refused {
			if refusal.aside == nil {
				return refusal.err
			}
			refusal.aside(refusal.err)
		}
	}
	p.known, p.unlike = true, false
	for _, mirror := range p.mirrors() {
		mirror.settle()
	}
	return p.undouble()
}

// tampered tells refusals of a good element from those of one that meets a
// table, set or element that should not be as it is.
func tampered(refused []refusal) bool {
	for _, refusal := range refused {
		if refusal.aside == nil || !refusal.adding ||
			errors.Is(refusal.err, unix.ENOENT) || errors.Is(refusal.err, unix.EEXIST) {
			return true
		}
	}
	return false
}

// try sends what differs, or a new table in the place of whatever is there.
func (p *Plane) try(most int, sameRules bool) ([]refusal, error) {
	b, err := newBatch(most)
	if err != nil {
		return nil, err
	}
	b.link = p.link
	if !p.known {
		if err := p.replace(b); err != nil {
			return nil, err
		}
		return p.sendNew(b)
	}
	for _, mirror := range p.mirrors() {
		if err := mirror.update(b); err != nil {
			return nil, err
		}
	}
	if !sameRules {
		for _, changed := range []*nft.Chain{postrouting(), chain("service-source"), chain("service-masquerade"), chain("service-masquerade-node")} {
			b.FlushChain(changed)
		}
		p.fillPostrouting(b)
		p.fillSources(b)
		p.policies.fillForward(b, p.rules.judged)
	}
	if refused, err := p.services.sendAhead(); err != nil || len(refused) > 0 {
		return refused, err
	}
	return b.send()
}

func (p *Plane) replace(b *batch) error {
	if err := p.clear(b); err != nil {
		return err
	}
	if err := p.addStanding(b); err != nil {
		return err
	}
	for _, mirror := range p.mirrors() {
		mirror.forget()
		if err := mirror.create(b); err != nil {
			return err
		}
	}
	p.addHostPorts(b)
	p.addSources(b)
	b.AddChain(postrouting())
	p.fillPostrouting(b)
	p.fillSources(b)
	if p.rules.judged {
		p.policies.fillForward(b, true)
	}
	return p.addAntiSpoof(b)
}

func (p *Plane) refused(node string) (problems []model.Problem) {
	for _, mirror := range p.mirrors() {
		problems = append(problems, mirror.refused(node)...)
	}
	slices.SortFunc(problems, model.Problem.Compare) // equal ones are to be equal
	return problems
}

func (p *Plane) problem(node string) model.Problem {
	return model.Problem{
		Kind: "Node", Name: node, Field: "nftables", Reason: "KernelUnsupported",
		Message: "pods cannot leave the cluster with the node's address, host ports lead nowhere, policies deny nothing, and pods may send with any address: the kernel lacks " + p.unsupported,
		Remedy:  "use a kernel of at least that version with nf_tables, its NAT and its fib expression, then restart the agent",
	}
}

func ourTable() *nft.Table {
	return &nft.Table{Family: nft.TableFamilyINet, Name: TableName}
}
