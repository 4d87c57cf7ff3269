package conformance_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
)

// observeTable reads the parts of a plan that are in the nftables table; they
// stay nil if there is none.
func (k *kernel) observeTable(node *plan.Node) {
	conn := &nft.Conn{}
	tables, err := conn.ListTablesOfFamily(nft.TableFamilyINet)
	k.must(err)
	if !slices.ContainsFunc(tables, func(table *nft.Table) bool { return table.Name == nftables.TableName }) {
		return
	}
	node.Masquerade = &masquerade.Plan{
		Pods: k.prefixes("pods4", "pods6"), Cluster: k.prefixes("cluster4", "cluster6"), Excluded: k.prefixes("excluded4", "excluded6"),
	}
	node.HostPort = &hostport.Plan{}
	for _, name := range []string{"hostports4", "hostports6", "hostip-ports4", "hostip-ports6"} {
		for _, element := range k.elements(name) {
			node.HostPort.Ports = node.HostPort.Ports.With(portOf(name, element.Key), addrPortOf(element.Val))
		}
	}
	for _, name := range []string{"hairpins4", "hairpins6"} {
		for _, element := range k.elements(name) {
			addr := addrOf(element.Key[:len(element.Key)/2])
			node.HostPort.Hairpins = node.HostPort.Hairpins.With(addr, struct{}{})
		}
	}
	node.AntiSpoof = &antispoof.Plan{}
	for _, name := range []string{"sources4", "sources6", "discoverers"} {
		for _, element := range k.elements(name) {
			address, rest := element.Key[:len(element.Key)-24], element.Key[len(element.Key)-24:]
			device, _, _ := bytes.Cut(rest[8:], []byte{0})
			source := antispoof.Source{Device: string(device), MAC: model.MAC(rest[:6]), Address: addrOf(address)}
			node.AntiSpoof.Sources = node.AntiSpoof.Sources.With(source, struct{}{})
		}
	}
	k.observeRules(node)
}

// observeRules finds the rules by the sets that they look into.
func (k *kernel) observeRules(node *plan.Node) {
	table := &nft.Table{Family: nft.TableFamilyINet, Name: nftables.TableName}
	rules, err := (&nft.Conn{}).GetRules(table, &nft.Chain{Table: table, Name: "postrouting"})
	k.must(err)
	for _, rule := range rules {
		set, to, random := "", netip.Addr{}, false
		for _, e := range rule.Exprs {
			switch e := e.(type) {
			case *expr.Lookup:
				if set == "" {
					set = strings.TrimSuffix(e.SetName, otherRanges)
				}
			case *expr.Immediate:
				to = addrOf(e.Data)
			case *expr.NAT:
				random = e.FullyRandom
			case *expr.Masq:
				random = e.FullyRandom
			}
		}
		family := model.IPv4
		if len(set) > 0 && set[len(set)-1] == '6' {
			family = model.IPv6
		}
		switch set {
		case "hairpins4", "hairpins6":
			node.HostPort.Own[family] = to
		case "pods4", "pods6":
			node.Masquerade.Sources[family], node.Masquerade.RandomPorts = to, random
		}
	}
}

// portOf reads a key: an address, if the map has them, a protocol and a port.
func portOf(name string, key []byte) hostport.Port {
	addr := addrOf(key[:len(key)-8])
	switch name {
	case "hostports4":
		addr = netip.IPv4Unspecified()
	case "hostports6":
		addr = netip.IPv6Unspecified()
	}
	rest := key[len(key)-8:]
	return hostport.Port{Protocol: model.Protocol(rest[0]), At: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(rest[4:]))}
}

func addrPortOf(value []byte) netip.AddrPort {
	at := len(value) - 4
	return netip.AddrPortFrom(addrOf(value[:at]), binary.BigEndian.Uint16(value[at:]))
}

func (k *kernel) elements(set string) []nft.SetElement {
	table := &nft.Table{Family: nft.TableFamilyINet, Name: nftables.TableName}
	elements, err := (&nft.Conn{}).GetSetElements(&nft.Set{Table: table, Name: set})
	k.must(err)
	return elements
}

// otherRanges is what sets of ranges are called as well, by turns.
const otherRanges = "-b"

func (k *kernel) prefixes(names ...string) (prefixes model.Map[netip.Prefix, struct{}]) {
	table := &nft.Table{Family: nft.TableFamilyINet, Name: nftables.TableName}
	for _, name := range names {
		if _, err := (&nft.Conn{}).GetSetByName(table, name); err != nil {
			name += otherRanges
		}
		elements := k.elements(name)
		slices.SortFunc(elements, func(a, b nft.SetElement) int {
			if order := bytes.Compare(a.Key, b.Key); order != 0 || a.IntervalEnd == b.IntervalEnd {
				return order
			}
			if a.IntervalEnd {
				return -1
			}
			return 1
		})
		var start netip.Addr
		for _, element := range elements {
			addr := addrOf(element.Key)
			if !element.IntervalEnd {
				start = addr
				continue
			}
			prefixes = prefixes.With(between(start, addr), struct{}{})
		}
		if n := len(elements); n > 0 && !elements[n-1].IntervalEnd {
			prefixes = prefixes.With(between(start, netip.Addr{}), struct{}{})
		}
	}
	return prefixes
}

// between is the prefix from start to below end, or to the end of the space.
func between(start, end netip.Addr) netip.Prefix {
	for bits := range start.BitLen() + 1 {
		prefix := netip.PrefixFrom(start, bits)
		if prefix.Masked() == prefix && (!end.IsValid() || !prefix.Contains(end)) {
			return prefix
		}
	}
	return netip.Prefix{}
}
