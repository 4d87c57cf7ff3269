package nftables

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/nftables/listing"
	"github.com/fairlead-net/fairlead/model"
)

// Survey finds the chains of others, of the network namespace of the calling thread,
// where packets are forwarded and which drop what they do not accept: by their policy, or
// by a last rule. Of these it tells which packets of pods they accept. Without nftables
// in the kernel there is none.
func (f *Firewall) Survey() (*model.Firewalls, error) {
	conn, err := nft.New()
	if err != nil {
		return nil, fmt.Errorf("survey firewalls: %w", err)
	}
	found, looked := &model.Firewalls{}, map[model.ForwardChain]bool{}
	for family := range familyNames {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil && !unknown(err) && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("survey firewalls: list chains of %s: %w", familyNames[family], err)
		}
		for _, chain := range chains {
			if chain.Hooknum == nil || *chain.Hooknum != *nft.ChainHookForward || chain.Type != nft.ChainTypeFilter ||
				family == nft.TableFamilyINet && chain.Table.Name == TableName {
				continue
			}
			chain.Table.Family = family
			w := newWalk(chain)
			ends, err := w.endsInDrop()
			if err != nil {
				return nil, fmt.Errorf("survey firewalls: %w", err)
			}
			if ends {
				found.Drops = append(found.Drops, chainOf(chain))
				found.Passes = append(found.Passes, w.passes()...)
			}
			maps.Copy(looked, w.looked)
		}
	}
	f.mu.Lock()
	f.forward = looked
	f.mu.Unlock()
	slices.SortFunc(found.Drops, model.ForwardChain.Compare)
	slices.SortFunc(found.Passes, model.ForwardPass.Compare)
	found.Passes = slices.Compact(found.Passes)
	return found, nil
}

// Droppers names the base chains of others, of the network namespace of the calling
// thread, that drop or refuse some packets: by their policy, or by a rule in them or in
// a chain that they lead to. They are named as nft does, and sorted.
func (f *Firewall) Droppers() (names []string, err error) {
	conn, err := nft.New()
	if err != nil {
		return nil, fmt.Errorf("look for firewalls: %w", err)
	}
	for family := range familyNames {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil && !unknown(err) {
			return nil, fmt.Errorf("look for firewalls: list chains of %s: %w", familyNames[family], err)
		}
		for _, chain := range chains {
			chain.Table.Family = family
			if chain.Hooknum == nil || family == nft.TableFamilyINet && chain.Table.Name == TableName {
				continue
			}
			policy := chain.Policy != nil && *chain.Policy == nft.ChainPolicyDrop
			if policy || dropsSome(chain, map[string]bool{}) {
				names = append(names, chainOf(chain).String())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

func dropsSome(chain *nft.Chain, seen map[string]bool) bool {
	if seen[chain.Name] || len(seen) > mostChains {
		return false
	}
	seen[chain.Name] = true
	there, err := listing.Rules(chain)
	if err != nil {
		return false // it has gone
	}
	return slices.ContainsFunc(there, func(rule *nft.Rule) bool {
		switch verdict := verdictOf(rule); verdict.Kind {
		case expr.VerdictDrop:
			return true
		case expr.VerdictJump, expr.VerdictGoto:
			return dropsSome(&nft.Chain{Name: verdict.Chain, Table: chain.Table}, seen)
		}
		return false
	})
}

// walk goes through the rules of a chain, and those that it leads to, as packets of pods
// do. What is not understood is taken to match no packet.
type walk struct {
	base   *nft.Chain
	looked map[model.ForwardChain]bool
	found  []model.ForwardPass
}

func newWalk(base *nft.Chain) *walk {
	return &walk{base: base, looked: map[model.ForwardChain]bool{chainOf(base): true}}
}

// mostChains are looked at in a walk: a firewall of more accepts pods' packets sooner, or
// is said to be in their way.
const mostChains = 64

// endsInDrop tells whether what no rule of the chain accepts is dropped.
func (w *walk) endsInDrop() (bool, error) {
	if w.base.Policy != nil && *w.base.Policy == nft.ChainPolicyDrop {
		return true, nil
	}
	there, err := listing.Rules(w.base)
	if err != nil && !unknown(err) {
		return false, err
	}
	if len(there) == 0 {
		return false, nil
	}
	last := there[len(there)-1]
	which, known := readMatch(w.base.Table.Family, last)
	return known && which == match{} && verdictOf(last).Kind == expr.VerdictDrop, nil
}

// passes are the packets of pods that the chain accepts.
func (w *walk) passes() []model.ForwardPass {
	w.follow(w.base, match{}, 0)
	return w.found
}

// follow looks at the rules of a chain, to which packets come that match. It tells whether
// none of them comes back.
func (w *walk) follow(chain *nft.Chain, comes match, depth int) (ended bool) {
	const deepest = 16 // NFT_JUMP_STACK_SIZE
	w.looked[chainOf(chain)] = true
	if depth == deepest || len(w.looked) > mostChains {
		return false
	}
	there, err := listing.Rules(chain)
	if err != nil {
		return false // it has gone, of which an event tells
	}
	for _, rule := range there {
		own, known := readMatch(chain.Table.Family, rule)
		both, possible := comes.and(own)
		if !known || !possible || strings.HasPrefix(commentOf(rule), Mark) {
			continue
		}
		verdict, all := verdictOf(rule), own == match{}
		switch verdict.Kind {
		case expr.VerdictJump, expr.VerdictGoto:
			ended := w.follow(&nft.Chain{Name: verdict.Chain, Table: chain.Table}, both, depth+1)
			if all && (ended || verdict.Kind == expr.VerdictGoto) {
				return ended
			}
		case expr.VerdictAccept:
			w.found = append(w.found, both.passes(chainOf(w.base))...)
			fallthrough
		case expr.VerdictDrop:
			if all {
				return true
			}
		case expr.VerdictReturn:
			if all {
				return false
			}
		}
	}
	return false
}
