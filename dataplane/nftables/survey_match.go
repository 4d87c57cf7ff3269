package nftables

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-net/fairlead/model"
)

// match is what packets have to have for a rule of others; all do if it is zero.
type match struct {
	family              nft.TableFamily // of IP; 0: any
	fromPods, toPods    bool            // they come through the interface of a pod of the node, or leave by one
	source, destination netip.Prefix    // zero: any
}

// and is for packets that match both, if there can be any.
func (m match) and(other match) (both match, possible bool) {
	both = match{family: max(m.family, other.family), fromPods: m.fromPods || other.fromPods, toPods: m.toPods || other.toPods}
	var ok [2]bool
	both.source, ok[0] = narrower(m.source, other.source)
	both.destination, ok[1] = narrower(m.destination, other.destination)
	return both, ok[0] && ok[1] && (m.family == 0 || other.family == 0 || m.family == other.family)
}

// within tells whether all that match are among some.
func (m match) within(some []match) bool {
	return slices.ContainsFunc(some, func(all match) bool {
		both, possible := m.and(all)
		return possible && both == m
	})
}

func narrower(a, b netip.Prefix) (both netip.Prefix, possible bool) {
	switch {
	case !a.IsValid():
		return b, true
	case !b.IsValid():
		return a, true
	case a.Bits() < b.Bits():
		return b, a.Overlaps(b)
	}
	return a, a.Overlaps(b)
}

// passes are those of a chain that accepts what matches.
func (m match) passes(chain model.ForwardChain) (all []model.ForwardPass) {
	for _, family := range model.Families {
		proto := nft.TableFamily(headers[family].protocol)
		if m.family != 0 && m.family != proto || chain.Family != "inet" && chain.Family != familyNames[proto] {
			continue
		}
		of := func(which model.PassOf, pods netip.Prefix) {
			if !pods.IsValid() {
				pods = model.AllOf(family)
			}
			all = append(all, model.ForwardPass{Chain: chain, Of: which, Pods: pods})
		}
		switch {
		case m.toPods || m.destination.IsValid():
		case m.source.IsValid() && !m.fromPods:
			of(model.BySource, m.source)
		default:
			of(model.FromPods, m.source)
		}
		if !m.fromPods && !m.source.IsValid() {
			of(model.ToPods, m.destination)
		}
	}
	return all
}

// readMatch reads what a rule wants of interfaces and addresses. It is not known if the
// rule wants something else as well, or is not understood.
func readMatch(table nft.TableFamily, rule *nft.Rule) (is match, known bool) {
	var loaded expr.Any // what the next comparison is about
	var mask []byte
	for _, part := range rule.Exprs {
		one, understood := match{}, true
		switch e := part.(type) {
		case *expr.Counter, *expr.Log, *expr.Verdict, *expr.Reject, *expr.Target:
		case *expr.Match:
			understood = e.Name == "comment"
		case *expr.Meta:
			loaded, mask, understood = e, nil, !e.SourceRegister
		case *expr.Payload:
			loaded, mask = e, nil
		case *expr.Bitwise:
			mask = e.Mask
		case *expr.Cmp:
			switch load := loaded.(type) {
			case *expr.Meta:
				one, understood = matchMeta(load.Key, string(e.Data))
			case *expr.Payload:
				one, understood = matchAddress(max(is.family, table), load, mask, e.Data) // inet is the least
			}
			understood = understood && e.Op == expr.CmpOpEq
		default:
			understood = false
		}
		both, possible := is.and(one)
		if !understood || !possible {
			return match{}, false
		}
		is = both
	}
	return is, true
}

func matchMeta(key expr.MetaKey, data string) (is match, known bool) {
	ofPods := data != "" && strings.HasPrefix(podDevices, data) // what ends, has a zero
	switch key {
	case expr.MetaKeyNFPROTO:
		for _, family := range model.Families {
			if data == string(rune(headers[family].protocol)) {
				is.family = nft.TableFamily(data[0])
			}
		}
	case expr.MetaKeyIIFNAME:
		is.fromPods = ofPods
	case expr.MetaKeyOIFNAME:
		is.toPods = ofPods
	}
	return is, is != match{}
}

// matchAddress is for addresses that begin as data does, where mask is 1.
func matchAddress(family nft.TableFamily, at *expr.Payload, mask, data []byte) (is match, known bool) {
	for _, f := range model.Families {
		header := headers[f]
		if nft.TableFamily(header.protocol) != family || at.Base != expr.PayloadBaseNetworkHeader {
			continue
		}
		address, bits := model.AllOf(f).Addr().AsSlice(), len(data)*8
		if mask != nil {
			bits, _ = net.IPMask(mask).Size()
		}
		if bits == 0 || copy(address, data) < len(data) {
			return is, false
		}
		from, _ := netip.AddrFromSlice(address)
		switch prefix := netip.PrefixFrom(from, bits); at.Offset {
		case header.source:
			is.source = prefix
		case header.dest:
			is.destination = prefix
		}
	}
	return is, is != match{}
}

// verdictOf is the last one of a rule; a refusal is a drop. VerdictContinue: there is none.
func verdictOf(rule *nft.Rule) *expr.Verdict {
	for _, part := range rule.Exprs {
		switch e := part.(type) {
		case *expr.Verdict:
			return e
		case *expr.Reject:
			return &expr.Verdict{Kind: expr.VerdictDrop}
		case *expr.Target: // of iptables
			if e.Name == "REJECT" {
				return &expr.Verdict{Kind: expr.VerdictDrop}
			}
		}
	}
	return &expr.Verdict{Kind: expr.VerdictContinue}
}
