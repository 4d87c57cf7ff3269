package nftables

import (
	"errors"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// feature is something that our table is made of.
type feature struct {
	name string // with the version that brought it
	add  func(*batch) error
}

// missingFeature tries, in a table that is removed in the same transaction,
// what our table is made of, and names the first feature that the kernel does
// not know. It is empty if that is not what was wrong.
func missingFeature() string {
	const name = "fairlead-probe"
	table := &nft.Table{Family: nft.TableFamilyINet, Name: name}
	interval := &nft.Set{Table: table, ID: 1, Name: "interval", KeyType: nft.TypeIP6Addr, Interval: true}
	concatenated := &nft.Set{
		Table: table, ID: 2, Name: "concatenated",
		KeyType: nft.MustConcatSetType(nft.TypeIFName, nft.TypeEtherAddr, nft.TypeIP6Addr),
	}
	mapOf := &nft.Set{
		Table: table, ID: 3, Name: "map", IsMap: true,
		KeyType:  nft.MustConcatSetType(nft.TypeInetProto, nft.TypeInetService),
		DataType: nft.MustConcatSetType(nft.TypeIP6Addr, nft.TypeInetService),
	}
	ranges := &nft.Set{
		Table: table, ID: 4, Name: "ranges", Interval: true, Concatenation: true,
		KeyType: nft.MustConcatSetType(nft.TypeInetService, nft.TypeIPAddr),
	}
	clients := &nft.Set{
		Table: table, ID: 5, Name: "clients", IsMap: true, Dynamic: true, HasTimeout: true, Size: 1,
		KeyType: nft.TypeIPAddr, DataType: nft.TypeClassID,
	}
	denied := &nft.Set{Table: table, ID: 6, Name: "denied", IsMap: true, Counter: true, KeyType: nft.TypeClassID, DataType: nft.TypeMark}
	filter := &nft.Chain{
		Name: "filter", Table: table, Type: nft.ChainTypeFilter,
		Hooknum: nft.ChainHookPrerouting, Priority: nft.ChainPriorityRaw,
	}
	nat := &nft.Chain{
		Name: "nat", Table: table, Type: nft.ChainTypeNAT,
		Hooknum: nft.ChainHookPostrouting, Priority: nft.ChainPriorityNATSource,
	}
	rule := func(chain *nft.Chain, exprs ...expr.Any) func(*batch) error {
		return func(b *batch) error { b.rule(chain, "", exprs); return nil }
	}
	features := []feature{
		{"nftables tables of the family inet (Linux 3.14)", func(b *batch) error { b.AddTable(table); return nil }},
		{"interval sets in nftables (Linux 3.13)", func(b *batch) error { return b.AddSet(interval, nil) }},
		{"concatenations in nftables sets (Linux 4.1)", func(b *batch) error { return b.AddSet(concatenated, nil) }},
		{"concatenations in nftables maps (Linux 4.1)", func(b *batch) error { return b.AddSet(mapOf, nil) }},
		{"filters before connection tracking in tables of the family inet (Linux 3.14)", func(b *batch) error { b.AddChain(filter); return nil }},
		{"groups of network interfaces in nftables (Linux 3.18)", rule(filter, fromPods()...)},
		{"fib lookups in tables of the family inet (Linux 4.10)", rule(filter, local()...)},
		{"NAT in tables of the family inet (Linux 5.2)", func(b *batch) error { b.AddChain(nat); return nil }},
		{"masquerade in tables of the family inet (Linux 5.2)", rule(nat, &expr.Masq{FullyRandom: true})},
		{"ranges in concatenations (Linux 5.6)", func(b *batch) error { return b.AddSet(ranges, nil) }},
		{"maps that packets add to (Linux 4.1)", func(b *batch) error { return b.AddSet(clients, nil) }},
		{"random numbers in nftables (Linux 4.9)", rule(filter, slot(2)...)},
		{"the priority of packets in nftables (Linux 3.14)", rule(filter, noPriority()...)},
		{"addresses of connections in nftables (Linux 4.17)", rule(nat, originalDestination(model.IPv4))},
		{"counters of elements in nftables (Linux 5.7)", func(b *batch) error { return b.AddSet(denied, nil) }},
		{"states of connections in nftables (Linux 3.14)", rule(filter, established()...)},
		{"logs of nftables, with nfnetlink_log (Linux 3.17)", rule(filter, logged(LogUnfound)...)},
		{"refusing before routing in nftables (Linux 5.9)", rule(filter, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})},
	}
	return firstRefused(table, features)
}

func firstRefused(table *nft.Table, features []feature) string {
	for most := range features {
		if refusesLast(table, features[:most+1]) {
			return features[most].name
		}
	}
	return ""
}

// refusesLast tells whether the kernel does not know the last of some features.
func refusesLast(table *nft.Table, features []feature) bool {
	b, err := newBatch(oneByOne)
	if err != nil {
		return false
	}
	for _, feature := range features {
		if err := feature.add(b); err != nil {
			return false
		}
	}
	b.DelTable(table)
	refused, err := b.send()
	return err == nil && slices.ContainsFunc(refused, func(r refusal) bool { return unknown(r.err) })
}

// unknown tells whether the kernel does not know what it was asked for. It
// says ENOENT for types of chains and expressions that it lacks.
func unknown(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT)
}
