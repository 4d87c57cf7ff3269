package nftables

import (
	"fmt"
	"net/netip"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// unforwarded are destinations that no router passes on, so that a packet to
// them does not leave the link: link-local (RFC 3927, RFC 4291 section 2.5.6)
// and multicast.
func unforwarded(family model.Family) []netip.Prefix {
	if family == model.IPv4 {
		return []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/4")}
	}
	return []netip.Prefix{netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8")}
}

// addMasquerade adds the chain that gives packets the node's address.
func addMasquerade(conn *nft.Conn, table *nft.Table, p *Plane) error {
	chain := conn.AddChain(natChain(table))
	for _, family := range model.Families {
		local := (&prefixSet{name: "unforwarded", id: 5, comment: "link-local and multicast"}).of(family)
		local.Constant = true
		var elements []nft.SetElement
		for _, prefix := range unforwarded(family) {
			elements = append(elements, interval(prefix)...)
		}
		if err := conn.AddSet(local, elements); err != nil {
			return fmt.Errorf("add set %s: %w", local.Name, err)
		}
		conn.AddRule(&nft.Rule{
			Table: table, Chain: chain,
			Exprs: masqueradeRule(family, p.pods.of(family), p.cluster.of(family), local),
			UserData: userdata.AppendString(nil, userdata.TypeComment,
				"from pods of this node to the outside: with the node's address"),
		})
	}
	return nil
}

func natChain(table *nft.Table) *nft.Chain {
	return &nft.Chain{
		Name: "postrouting", Table: table, Type: nft.ChainTypeNAT,
		Hooknum: nft.ChainHookPostrouting, Priority: nft.ChainPriorityNATSource,
	}
}

// masqueradeRule reads in nft:
//
//	ip saddr @pods4 ip daddr != @cluster4 ip daddr != @unforwarded4 masquerade fully-random
//
// Ports are random, lest two connections that leave at once pick the same one
// and the second packet is dropped (see nf_nat_used_tuple in the kernel).
func masqueradeRule(family model.Family, from, notTo, norTo *nft.Set) []expr.Any {
	const register = 1
	protocol, source, destination, length := byte(unix.NFPROTO_IPV4), uint32(12), uint32(16), uint32(4)
	if family == model.IPv6 {
		protocol, source, destination, length = unix.NFPROTO_IPV6, 8, 24, 16
	}
	address := func(offset uint32) expr.Any {
		return &expr.Payload{
			DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length,
		}
	}
	in := func(set *nft.Set, not bool) expr.Any {
		return &expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID, Invert: not}
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{protocol}},
		address(source), in(from, false),
		address(destination), in(notTo, true),
		address(destination), in(norTo, true),
		&expr.Counter{},
		&expr.Masq{FullyRandom: true},
	}
}
