package kube

import (
	"hash/maphash"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-net/fairlead/model"
)

// policyParts are what NetworkPolicies are made of. Most of them choose the same few
// kinds of pods, and of what a policy says in full three quarters are others' words.
type policyParts struct {
	selectors *shared[*model.Selector]
	peers     *shared[[]model.Peer]
	ports     *shared[[]model.PolicyPort]
}

func newPolicyParts() *policyParts {
	return &policyParts{
		selectors: newShared(writeSelector, equalSelectors),
		peers:     newShared(writePeers, equalPeers),
		ports:     newSharedLists[model.PolicyPort](),
	}
}

// sharingPolicies converts NetworkPolicies so that they share their parts.
func sharingPolicies() func(*networkingv1.NetworkPolicy) converted[model.PolicyKey, *model.Policy] {
	return newPolicyParts().convert
}

func (p *policyParts) convert(object *networkingv1.NetworkPolicy) converted[model.PolicyKey, *model.Policy] {
	to := convertPolicy(object)
	p.share(to.value)
	return to
}

// share is for a policy that nobody else has yet.
func (p *policyParts) share(policy *model.Policy) {
	policy.Pods = *p.selectors.of(&model.Selector{Requirements: policy.Pods.Requirements}) // not its own: who shares that would keep all of it
	for d := range policy.Rules {
		for i := range policy.Rules[d] {
			rule := &policy.Rules[d][i]
			for j := range rule.Peers {
				if peer := &rule.Peers[j]; peer.Namespaces != nil {
					peer.Namespaces, peer.Pods = p.selectors.of(peer.Namespaces), p.selectors.of(peer.Pods)
				}
			}
			if rule.Peers != nil {
				rule.Peers = p.peers.of(rule.Peers)
			}
			if rule.Ports != nil {
				rule.Ports = p.ports.of(rule.Ports)
			}
		}
	}
}

func writeSelector(hash *maphash.Hash, s *model.Selector) {
	for i := range s.Requirements {
		r := &s.Requirements[i]
		_, _ = hash.WriteString(r.Key) // never fails
		_ = hash.WriteByte(byte(r.Operator))
		for _, value := range r.Values {
			_, _ = hash.WriteString(value)
			_ = hash.WriteByte(',')
		}
	}
}

func equalSelectors(a, b *model.Selector) bool {
	return slices.EqualFunc(a.Requirements, b.Requirements, func(x, y model.Requirement) bool {
		return x.Key == y.Key && x.Operator == y.Operator && slices.Equal(x.Values, y.Values)
	})
}

// peerKey is what can be compared of a peer of a NetworkPolicy. Selectors are shared
// by then, so that their addresses tell them apart.
type peerKey struct {
	namespaces, pods *model.Selector
	block            netip.Prefix
}

func keyOfPeer(p *model.Peer) peerKey { return peerKey{p.Namespaces, p.Pods, p.Block} }

func writePeers(hash *maphash.Hash, all []model.Peer) {
	for i := range all {
		maphash.WriteComparable(hash, keyOfPeer(&all[i]))
	}
}

func equalPeers(a, b []model.Peer) bool {
	return slices.EqualFunc(a, b, func(x, y model.Peer) bool {
		return keyOfPeer(&x) == keyOfPeer(&y) && slices.Equal(x.Except, y.Except)
	})
}
