package nftables

import (
	"fmt"
	"net"
	"net/netip"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/antispoof"
)

// sourceSet is what pods may send: a set for each family, and one of those
// that speak IPv6 and so have to discover neighbours.
type sourceSet = elements[antispoof.Source, struct{}]

func newSources() sourceSet {
	own := perFamily("sources", "what pods send from", func(set *nft.Set, address nft.SetDatatype) {
		set.KeyType = nft.MustConcatSetType(address, nft.TypeEtherAddr, nft.TypeIFName)
	})
	discovery := &nft.Set{
		Name: "discoverers", Comment: "pods that have IPv6 neighbours",
		KeyType: nft.MustConcatSetType(nft.TypeEtherAddr, nft.TypeIFName),
	}
	return sourceSet{
		sets: append(own, discovery),
		encode: func(source antispoof.Source, _ struct{}) (int, []nft.SetElement) {
			in := len(model.Families)
			if source.Address.IsValid() {
				in = int(model.FamilyOf(source.Address))
			}
			key := append(source.Address.AsSlice(), source.MAC[:]...)
			return in, []nft.SetElement{{Key: append(append(key, 0, 0), padded(source.Device)...)}}
		},
		named: func(source antispoof.Source) string { return fmt.Sprintf("source %s", source) },
	}
}

// addAntiSpoof adds the chains that drop what pods may not send, before a
// connection is made of it. What comes from a pod that is not known yet is
// dropped, too.
func (p *Plane) addAntiSpoof(b *batch) error {
	table := ourTable()
	check := b.AddChain(&nft.Chain{Table: table, Name: "from-pod"})
	if err := p.addDNS(b); err != nil {
		return err
	}
	prerouting := b.AddChain(&nft.Chain{
		Name: "raw", Table: table, Type: nft.ChainTypeFilter,
		Hooknum: nft.ChainHookPrerouting, Priority: nft.ChainPriorityRaw,
	})
	b.rule(prerouting, "", fromPods(), then(expr.VerdictJump, check.Name))
	p.addQueries(b, prerouting)
	for _, family := range model.Families {
		after := word0 + headers[family].words
		b.rule(check, "", of(family), overEthernet(), []expr.Any{
			source(family, word0), etherSource(after), meta(expr.MetaKeyIIFNAME, after+2), in(p.sources.sets[family]),
		}, then(expr.VerdictReturn, ""))
	}
	if err := addDiscovery(b, check, p.sources.sets[len(model.Families)]); err != nil {
		return err
	}
	b.rule(check, "another address or MAC than the pod's", counted(then(expr.VerdictDrop, "")...))
	return nil
}

// addDiscovery lets pods discover neighbours and join multicast groups with
// link-local addresses and without one (RFC 4861, RFC 4862, RFC 3810).
func addDiscovery(b *batch, chain *nft.Chain, pods *nft.Set) error {
	for _, from := range [][]expr.Any{
		{source(model.IPv6, word0), equal(netip.IPv6Unspecified().AsSlice()...)},
		fromLinkLocal(),
	} {
		var messages []nft.SetElement
		for _, icmpType := range []byte{131, 132, 133, 135, 136, 143} {
			messages = append(messages, nft.SetElement{Key: []byte{icmpType}})
		}
		types, err := b.literal(nft.TypeICMP6Type, messages...)
		if err != nil {
			return err
		}
		b.rule(chain, "neighbour and listener discovery", of(model.IPv6), from,
			[]expr.Any{meta(expr.MetaKeyL4PROTO, word0), equal(unix.IPPROTO_ICMPV6)},
			[]expr.Any{&expr.Payload{DestRegister: word0, Base: expr.PayloadBaseTransportHeader, Len: 1}, in(types)},
			overEthernet(), []expr.Any{etherSource(word0), meta(expr.MetaKeyIIFNAME, word2), in(pods)},
			then(expr.VerdictReturn, ""))
	}
	return nil
}

// fromLinkLocal matches packets from fe80::/10. A set of both would be one of ranges,
// which is empty for a moment as it comes: see succeed.go.
func fromLinkLocal() []expr.Any {
	prefix := netip.MustParsePrefix("fe80::/10")
	mask := net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())
	return []expr.Any{
		source(model.IPv6, word0),
		&expr.Bitwise{SourceRegister: word0, DestRegister: word0, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
		equal(prefix.Addr().AsSlice()...),
	}
}
