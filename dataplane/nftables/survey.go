package nftables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-net/fairlead/dataplane/nftables/listing"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/firewall"
)

// Survey finds the chains of others, of the network namespace of the calling thread,
// where packets are forwarded and which drop what they do not accept: by their policy, or
// by a last rule. Of these it tells which packets of pods they accept. Without nftables
// in the kernel there is none.
func (f *Firewall) Survey() (*model.Firewalls, error) {
	found, looked := &model.Firewalls{}, map[model.ForwardChain]bool{}
	l := &lister{known: map[model.ForwardChain][]*nft.Rule{}, look: func(chain model.ForwardChain) {
		looked[chain] = true
		f.watch(chain)
	}}
	bases, err := baseChains()
	if err != nil {
		return nil, fmt.Errorf("survey firewalls: %w", err)
	}
	for _, base := range bases {
		if *base.Hooknum != *nft.ChainHookForward || base.Type != nft.ChainTypeFilter {
			continue
		}
		w := &walk{lister: l, base: base}
		if w.endsInDrop() {
			w.follow(base, match{}, 0)
			found.Drops = append(found.Drops, chainOf(base))
			found.Passes = append(found.Passes, w.found...)
		}
	}
	if l.err != nil {
		return nil, fmt.Errorf("survey firewalls: %w", l.err)
	}
	f.mu.Lock()
	f.forward = looked
	f.mu.Unlock()
	slices.SortFunc(found.Drops, model.ForwardChain.Compare)
	slices.SortFunc(found.Passes, model.ForwardPass.Compare)
	found.Passes = slices.Compact(found.Passes)
	return found, nil
}

// watch has changes of a chain lead to another survey, from before it is looked at.
func (f *Firewall) watch(chain model.ForwardChain) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.forward[chain] {
		more := maps.Clone(f.forward)
		if more == nil {
			more = map[model.ForwardChain]bool{}
		}
		more[chain] = true
		f.forward = more
	}
}

// baseChains are those of others, at any hook.
func baseChains() (bases []*nft.Chain, err error) {
	for family, name := range familyNames {
		chains, err := listing.Chains(family)
		if err != nil && !unknown(err) {
			return nil, fmt.Errorf("family %s: %w", name, err)
		}
		for _, chain := range chains {
			if chain.Hooknum != nil && (family != nft.TableFamilyINet || chain.Table.Name != TableName) {
				bases = append(bases, chain)
			}
		}
	}
	return bases, nil
}

// lister lists the rules of each chain once.
type lister struct {
	look  func(model.ForwardChain) // is told of a chain before it is listed
	known map[model.ForwardChain][]*nft.Rule
	err   error // the first
}

func (l *lister) rules(chain *nft.Chain) []*nft.Rule {
	name := chainOf(chain)
	there, ok := l.known[name]
	if !ok && l.err == nil {
		l.look(name)
		var err error
		if there, err = listing.Rules(chain); err != nil && !unknown(err) {
			l.err = err
		}
		l.known[name] = there
	}
	return there
}

// mostChains are looked at: of a firewall of more, it is not known what the others do.
const mostChains = 200

func (l *lister) full() bool { return l.err != nil || len(l.known) >= mostChains }

// Droppers names the base chains of others, of the network namespace of the calling
// thread, that drop or refuse some packets: by their policy, or by a rule in them or in
// a chain that they lead to, but for those that only a map of verdicts leads to. They are
// named as nft does, and sorted.
func (f *Firewall) Droppers() (names []string, err error) {
	bases, err := baseChains()
	if err != nil {
		return nil, fmt.Errorf("look for firewalls: %w", err)
	}
	for _, base := range bases {
		l := &lister{known: map[model.ForwardChain][]*nft.Rule{}, look: func(model.ForwardChain) {}}
		if hasPolicyDrop(base) || l.dropsSome(base) {
			names = append(names, chainOf(base).String())
		}
		if l.err != nil {
			return nil, fmt.Errorf("look for firewalls: %w", l.err)
		}
	}
	slices.Sort(names)
	return names, nil
}

func hasPolicyDrop(chain *nft.Chain) bool {
	return chain.Policy != nil && *chain.Policy == nft.ChainPolicyDrop
}

// kubeletChain is what each kubelet has in iptables: it drops what comes to loopback
// addresses from others alone (kubernetes pkg/kubelet/kubelet_network_linux.go).
const kubeletChain = "KUBE-FIREWALL"

func (l *lister) dropsSome(chain *nft.Chain) bool {
	if _, seen := l.known[chainOf(chain)]; seen || l.full() {
		return false
	}
	return slices.ContainsFunc(l.rules(chain), func(rule *nft.Rule) bool {
		switch verdict := verdictOf(rule); verdict.Kind {
		case expr.VerdictDrop:
			return true
		case expr.VerdictJump, expr.VerdictGoto:
			return verdict.Chain != kubeletChain && l.dropsSome(&nft.Chain{Name: verdict.Chain, Table: chain.Table})
		}
		return false
	})
}

// walk goes through the rules of a base chain, and of those that it leads to, as packets
// of pods do. What is not understood is taken to match no packet.
type walk struct {
	*lister
	base    *nft.Chain
	refused []match // those that have been dropped so far
	found   []model.ForwardPass
}

// endsInDrop tells whether what no rule of the chain accepts is dropped.
func (w *walk) endsInDrop() bool {
	there := w.rules(w.base)
	if hasPolicyDrop(w.base) || len(there) == 0 {
		return hasPolicyDrop(w.base)
	}
	last := there[len(there)-1]
	which, known := readMatch(w.base.Table.Family, last)
	return known && which == match{} && verdictOf(last).Kind == expr.VerdictDrop
}

// follow looks at the rules of a chain, to which packets come that match. It tells whether
// none of them comes back. Chains that iptables' FORWARD leads to are left out: kube-proxy
// and Docker change them all the time, and who accepts pods' packets for good does so in
// FORWARD itself.
func (w *walk) follow(chain *nft.Chain, comes match, depth int) (ended bool) {
	const deepest = 16 // NFT_JUMP_STACK_SIZE
	if depth == deepest || w.full() {
		return false
	}
	var left []match // the chain, or went to another for good
	for _, rule := range w.rules(chain) {
		own, known := readMatch(chain.Table.Family, rule)
		both, possible := comes.and(own)
		if !known || !possible || strings.HasPrefix(commentOf(rule), Mark) {
			continue
		}
		ends, verdict := false, verdictOf(rule)
		switch verdict.Kind {
		case expr.VerdictJump, expr.VerdictGoto:
			if firewall.Editable(chainOf(w.base)) {
				continue
			}
			ends = w.follow(&nft.Chain{Name: verdict.Chain, Table: chain.Table}, both, depth+1)
		case expr.VerdictAccept:
			if !both.within(w.refused) && !both.within(left) {
				w.found = append(w.found, both.passes(chainOf(w.base))...)
			}
			ends = true
		case expr.VerdictDrop:
			w.refused = append(w.refused, both)
			ends = true
		}
		leaves := verdict.Kind == expr.VerdictGoto || verdict.Kind == expr.VerdictReturn
		if own == (match{}) && (ends || leaves) {
			return ends
		}
		if leaves {
			left = append(left, both)
		}
	}
	return false
}
