package nftables

import (
	"fmt"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/dns"
)

// Queries of DNS are answered on the node itself, by whoever listens at the
// address that they are sent to. Before the kernel tracks a connection, it looks
// whether there is such a socket; then the packet is not tracked, so that no
// Service is asked about it, and is delivered here, where the address is one of
// the node's own (a route of type local). Without a socket it is tracked and sent
// on as that of any Service. So no query waits for anybody to hear of a server
// that died.
//
// What the node itself sends has its own socket, and the kernel does not look for
// another one. Its queries are answered here as long as the plan says so, but for
// connections of TCP that went elsewhere before.

// dnsPorts are addresses and ports where DNS is.
type dnsPorts = elements[dns.Port, struct{}]

func newDNSPorts(name, comment string) dnsPorts {
	return dnsPorts{
		sets: perFamily(name, comment, func(set *nft.Set, address nft.SetDatatype) {
			set.KeyType = nft.MustConcatSetType(address, nft.TypeInetProto, nft.TypeInetService)
		}),
		encode: func(port dns.Port, _ struct{}) (int, []nft.SetElement) {
			key := append(port.At.Addr().AsSlice(), byte(port.Protocol), 0, 0, 0)
			return int(model.FamilyOf(port.At.Addr())), []nft.SetElement{{Key: appendPort(key, port.At.Port())}}
		},
		named: func(port dns.Port) string { return "dns " + port.String() },
	}
}

// queries are where DNS is, and where which queries are answered here.
type queries struct{ at, here, own dnsPorts }

func newQueries() queries {
	return queries{
		at:   newDNSPorts("dns", "where DNS is, on every node"),
		here: newDNSPorts("dns-here", "where queries are answered here, if somebody listens"),
		own:  newDNSPorts("dns-own", "where the node's own queries are answered here"),
	}
}

// desire leaves as it is what is not known.
func (q *queries) desire(listen *dns.Listen) {
	if listen == nil {
		return
	}
	q.at.Desire(listen.Ports)
	q.here.Desire(listen.Queries)
	q.own.Desire(listen.Own)
}

// toDNS matches packets to a port of a set, and fromDNS those from it.
func toDNS(family model.Family, ports *dnsPorts) []expr.Any {
	return dnsKey(family, destination, destinationPort, ports)
}

func fromDNS(family model.Family, ports *dnsPorts) []expr.Any {
	return dnsKey(family, source, sourcePort, ports)
}

func dnsKey(family model.Family, address func(model.Family, uint32) expr.Any, port func(uint32) expr.Any, ports *dnsPorts) []expr.Any {
	after := word0 + headers[family].words
	return []expr.Any{address(family, word0), meta(expr.MetaKeyL4PROTO, after), port(after + 1), in(ports.sets[family])}
}

// ofSocket matches packets of which the socket that takes them, if there is one,
// is bound to all addresses (wildcard) or belongs to a proxy (transparent), or not.
// The kernel knows the former only of those that are more than half open, and not
// yet closed.
func ofSocket(key expr.SocketKey, is byte) []expr.Any {
	return []expr.Any{&expr.Socket{Key: key, Register: word0}, equal(is)}
}

func untracked() []expr.Any { return []expr.Any{&expr.Notrack{}} }

// queryChain is that of packets to where DNS is.
func queryChain(family model.Family) *nft.Chain {
	return chain([...]string{"dns-query4", "dns-query6"}[family])
}

// Connections of TCP that went elsewhere, because nobody listened here, go on
// there when somebody does: else it would end those that it does not know.
const (
	elsewhereTime = 2 * time.Minute // after their last packet
	mostElsewhere = 65536           // then, those that come last are not known
)

func elsewhere(family model.Family) *nft.Set {
	const number = 900 // above those of mirrors
	set := &nft.Set{
		Table: ourTable(), ID: number + uint32(family), Name: [...]string{"dns-elsewhere4", "dns-elsewhere6"}[family],
		Comment: "connections of TCP that others answer", KeyType: nft.MustConcatSetType(nft.TypeIPAddr, nft.TypeInetService),
		Dynamic: true, HasTimeout: true, Timeout: elsewhereTime, Size: mostElsewhere,
	}
	if family == model.IPv6 {
		set.KeyType = nft.MustConcatSetType(nft.TypeIP6Addr, nft.TypeInetService)
	}
	return set
}

// ofTCP matches TCP of a family.
func ofTCP(family model.Family) []expr.Any {
	return append(of(family), meta(expr.MetaKeyL4PROTO, word0), equal(unix.IPPROTO_TCP))
}

// caller loads who sent a packet.
func caller(family model.Family) []expr.Any {
	return []expr.Any{source(family, word0), sourcePort(word0 + headers[family].words)}
}

// remembered adds or removes a client that is loaded.
func remembered(in *nft.Set, operation uint32) expr.Any {
	return &expr.Dynset{SrcRegKey: word0, SetName: in.Name, SetID: in.ID, Operation: operation}
}

// opening matches packets that begin a connection of TCP.
func opening() []expr.Any {
	const flags, syn, ack = 13, 0x02, 0x10
	return append(transport(model.TCP, flags),
		&expr.Bitwise{SourceRegister: word0, DestRegister: word0, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}}, equal(syn))
}

// addQuery adds the chain that looks who answers.
func addQuery(b *batch, family model.Family) error {
	here, others := b.AddChain(queryChain(family)), elsewhere(family)
	if err := b.AddSet(others, nil); err != nil {
		return fmt.Errorf("add set %s: %w", others.Name, err)
	}
	back := then(expr.VerdictReturn, "")
	b.rule(here, "another program's, which has all addresses", ofSocket(expr.SocketKeyWildcard, 1), back)
	goOnElsewhere(b, here, family)
	b.rule(here, "somebody listens", ofSocket(expr.SocketKeyTransparent, 0), untracked(), back)
	b.rule(here, "nobody does", ofTCP(family), rememberElsewhere(family))
	return nil
}

// addDNS adds the chains that keep queries that are answered here, and the
// answers, from being tracked; addQueries adds the rule that leads to the former.
func (p *Plane) addDNS(b *batch) error {
	if p.noSockets {
		return nil
	}
	queries := b.AddChain(chain("dns-query"))
	for _, family := range model.Families {
		if err := addQuery(b, family); err != nil {
			return err
		}
		b.rule(queries, "queries of DNS", of(family), toDNS(family, &p.queries.here), then(expr.VerdictJump, queryChain(family).Name))
	}
	output := b.AddChain(&nft.Chain{
		Name: "raw-output", Table: ourTable(), Type: nft.ChainTypeFilter,
		Hooknum: nft.ChainHookOutput, Priority: nft.ChainPriorityRaw,
	})
	answers, asked := b.AddChain(chain("dns-answers")), b.AddChain(chain("dns-asked"))
	b.rule(output, "", fromPort(dns.QueryPort), then(expr.VerdictJump, answers.Name))
	b.rule(output, "", toPort(dns.QueryPort), then(expr.VerdictJump, asked.Name))
	for _, family := range model.Families {
		b.rule(answers, "answers of DNS", of(family), fromDNS(family, &p.queries.at), untracked())
		own := b.AddChain(chain([...]string{"dns-own-query4", "dns-own-query6"}[family]))
		b.rule(asked, "queries of the node that are answered here", of(family), toDNS(family, &p.queries.own), then(expr.VerdictGoto, own.Name))
		// The agent asks the server of its node from the very address of DNS, which
		// nobody else has, so that it is never answered by another one.
		b.rule(asked, "queries of who watches the server", of(family),
			dnsSource(family, &p.queries.at), toDNS(family, &p.queries.at), untracked(), then(expr.VerdictReturn, ""))
		b.rule(asked, "queries of the node that others answer", ofTCP(family), toDNS(family, &p.queries.here), rememberElsewhere(family))
		goOnElsewhere(b, own, family)
		b.rule(own, "", untracked())
	}
	return nil
}

// goOnElsewhere has connections go on where others answer, until they are opened
// again.
func goOnElsewhere(b *batch, to *nft.Chain, family model.Family) {
	others := elsewhere(family)
	b.rule(to, "", opening(), of(family), caller(family), []expr.Any{remembered(others, dynsetDelete)})
	b.rule(to, "connections that others answer", ofTCP(family), caller(family), []expr.Any{in(others)},
		rememberElsewhere(family), then(expr.VerdictReturn, ""))
}

// rememberElsewhere takes note that others answer a connection.
func rememberElsewhere(family model.Family) []expr.Any {
	return append(caller(family), remembered(elsewhere(family), unix.NFT_DYNSET_OP_UPDATE))
}

// addQueries compares the port before all else: of all other packets of the node,
// no more is asked.
func (p *Plane) addQueries(b *batch, prerouting *nft.Chain) {
	if p.noSockets {
		return
	}
	b.rule(prerouting, "", toPort(dns.QueryPort), then(expr.VerdictJump, "dns-query"))
}

// dnsSource matches packets from an address of DNS to a port that DNS has.
func dnsSource(family model.Family, ports *dnsPorts) []expr.Any {
	return dnsKey(family, source, destinationPort, ports)
}

// socketFeature is what tells whether somebody listens.
const socketFeature = "sockets in nftables that are bound to one address (Linux 5.10, nft_socket)"

// knowsSockets tells whether the kernel has it.
func knowsSockets() bool {
	table := &nft.Table{Family: nft.TableFamilyINet, Name: "fairlead-probe"}
	prerouting := &nft.Chain{
		Name: "raw", Table: table, Type: nft.ChainTypeFilter,
		Hooknum: nft.ChainHookPrerouting, Priority: nft.ChainPriorityRaw,
	}
	return !refusesLast(table, []feature{
		{add: func(b *batch) error { b.AddTable(table); b.AddChain(prerouting); return nil }},
		{add: func(b *batch) error {
			b.rule(prerouting, "", ofSocket(expr.SocketKeyWildcard, 1), untracked())
			return nil
		}},
	})
}

// withoutSockets says that queries leave the node, if they need not.
func (p *Plane) withoutSockets(node *plan.Node) []model.Problem {
	if !p.noSockets || node.DNS == nil || node.DNS.Own.Len() == 0 {
		return nil
	}
	return []model.Problem{{
		Kind: "Node", Name: node.Name, Field: "nftables", Reason: "DNSNotHere",
		Message: "the DNS server of the node is not asked by its pods, as the address of DNS is that of a Service like any other: the kernel lacks " + socketFeature,
		Remedy:  "use a kernel of at least that version, with that module, then restart the agent",
	}}
}
