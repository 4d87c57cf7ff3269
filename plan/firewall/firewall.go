// Package firewall plans how pods' packets pass the firewalls of others on the
// node. A packet that is forwarded has to be accepted in every table: what Docker
// or ufw drop in theirs, no rule in ours can save. It is pure.
package firewall

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Plan says where pods' packets are to be accepted. It is immutable.
type Plan struct {
	Accepts model.Map[Accept, struct{}]

	passing *passing // nil: it was not needed
}

// Accept is a chain in which packets from and to pods of this node, and through
// their interfaces, are accepted before anything else.
type Accept struct {
	Chain model.ForwardChain
	Pods  netip.Prefix
}

func (a Accept) String() string { return fmt.Sprintf("%s in %s", a.Pods, a.Chain) }

// Compute plans the firewall of one node and says what is in pods' way. prev is
// the last plan or nil, and is returned if the snapshot does not say enough for
// another.
func Compute(prev *Plan, snapshot *model.Snapshot, name string) (*Plan, []model.Problem) {
	self, ok := snapshot.Nodes.Get(name)
	if !ok || snapshot.Network == nil || snapshot.Firewalls == nil {
		return prev, nil
	}
	next := &Plan{}
	var problems []model.Problem
	chains := snapshot.Firewalls.Drops
	if snapshot.Network.ForeignFirewall == model.IgnoreForeign {
		chains = nil
	}
	for _, chain := range chains {
		pods := inWay(chain, self, snapshot.Attachments)
		if Editable(chain) && snapshot.Network.ForeignFirewall == model.AcceptInForeign {
			// Also where others accept them: their rules may go.
			for _, prefix := range pods {
				next.Accepts = next.Accepts.With(Accept{chain, prefix}, struct{}{})
			}
			continue
		}
		if next.passing == nil {
			next.passing = passingOf(prev, snapshot)
		}
		if slices.ContainsFunc(pods, func(prefix netip.Prefix) bool { return !next.passing.both(chain, prefix) }) {
			problems = append(problems, problem(self.Name, chain, pods, next.passing.all))
		}
	}
	if prev != nil && same(prev.Accepts, next.Accepts) {
		next.Accepts = prev.Accepts
		if prev.passing == next.passing {
			return prev, problems
		}
	}
	return next, problems
}

func same(a, b model.Map[Accept, struct{}]) bool {
	for range model.Diff(a, b) {
		return false
	}
	return true
}

// Editable tells whether a rule of ours may be put into a chain: those of
// iptables are where everybody puts theirs. Other tables belong to one program,
// which would remove it.
func Editable(chain model.ForwardChain) bool {
	return (chain.Family == "ip" || chain.Family == "ip6") && chain.Table == "filter" && chain.Chain == "FORWARD"
}

// inWay are the pods whose packets come through a chain: ranges of this node,
// and addresses that pods have from a former range.
func inWay(chain model.ForwardChain, self *model.Node, attachments model.Map[model.AttachmentKey, *model.Attachment]) (pods []netip.Prefix) {
	passes := func(addr netip.Addr) bool {
		return chain.Family == "inet" || (chain.Family == "ip") == addr.Is4()
	}
	for _, prefix := range self.PodCIDRs {
		if passes(prefix.Addr()) {
			pods = append(pods, prefix)
		}
	}
	ranges := len(pods)
	for _, attachment := range attachments.All() {
		for _, addr := range attachment.Addresses {
			in := func(prefix netip.Prefix) bool { return prefix.Contains(addr) }
			if passes(addr) && !slices.ContainsFunc(pods[:ranges], in) {
				pods = append(pods, model.HostPrefix(addr))
			}
		}
	}
	slices.SortFunc(pods[ranges:], netip.Prefix.Compare)
	return pods
}

func problem(node string, chain model.ForwardChain, pods, all []netip.Prefix) model.Problem {
	remedy := fmt.Sprintf(`let pods' packets pass: nft insert rule %s iifname "fl*" accept, and the same with oifname; and have the program that made the chain do so when it starts`, chain)
	switch {
	case chain.Table == "firewalld":
		if len(all) == 0 { // no node has a range any more
			all = pods
		}
		remedy = fmt.Sprintf("let packets of all pods and nodes pass: firewall-cmd --permanent --zone=trusted --add-source=%s, the same of each of %v, or of the wider range that the cluster gives to nodes, and of the nodes' addresses; then firewall-cmd --reload", all[0], all)
	case Editable(chain):
		program := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[chain.Family]
		remedy = fmt.Sprintf("set spec.foreignFirewall of Network/default to Accept, or let pods' packets pass: %s -I FORWARD -i fl+ -j ACCEPT, and the same with -o", program)
	}
	return model.Problem{
		Kind: "Node", Name: node, Field: "nftables " + chain.String(), Reason: "ForeignFirewall",
		Message: fmt.Sprintf("chain %s of table %s %s, which is another program's, drops the packets of pods that are forwarded", chain.Chain, chain.Family, chain.Table),
		Remedy:  remedy,
	}
}
