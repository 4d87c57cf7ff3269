package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// The chains that all Services share. A packet that begins a connection takes
//
//	services4 -> [service-restricted4 ->] [service-special4 -> [service-inside4 ->]] services4-1-of-n
//
// and, if it goes on to a target, at the end service-source. Each step is one
// lookup, whatever the number of Services.

func chain(name string) *nft.Chain { return &nft.Chain{Table: ourTable(), Name: name} }

func (m *serviceMaps) name(of string) string { return of + m.suffix() }

func (m *serviceMaps) suffix() string { return [...]string{"4", "6"}[m.family] }

// setPriority takes the first register.
func setPriority() expr.Any {
	return &expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: word0}
}

func noPriority() []expr.Any {
	return []expr.Any{&expr.Immediate{Register: word0, Data: native(0)}, setPriority()}
}

// byVIP looks up the VIP that a packet is sent to, and keeps what is found as
// the packet's priority.
func (m *serviceMaps) byVIP(in *nft.Set) []expr.Any {
	after := word0 + headers[m.family].words
	return append(of(m.family),
		destination(m.family, word0), meta(expr.MetaKeyL4PROTO, after), destinationPort(after+1),
		mapped(in), setPriority())
}

// byClass goes to the chain of the class that is the priority.
func byClass(chains *nft.Set) []expr.Any {
	return []expr.Any{
		meta(expr.MetaKeyPRIORITY, word0),
		&expr.Lookup{SourceRegister: word0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: chains.Name, SetID: chains.ID},
	}
}

// again is said of a lookup that is repeated: a packet that is on its way while
// an element is replaced may meet neither the old nor the new one.
const again = "again, if a change was under way"

// addChains adds those of fixed names.
func (s *services) addChains(b *batch) error {
	reject, drop := b.AddChain(chain("service-reject")), b.AddChain(chain("service-drop"))
	b.rule(reject, "Service without endpoints, or not its port", standing(),
		counted(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}))
	b.rule(drop, "Service without endpoints here, or not its client", standing(), counted(then(expr.VerdictDrop, "")...))
	for i := range s.families {
		if err := s.addFamilyChains(b, &s.families[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *services) addFamilyChains(b *batch, m *serviceMaps) error {
	main, inside := b.AddChain(chain(m.name("services"))), b.AddChain(chain(m.name("service-inside")))
	special, restricted := b.AddChain(chain(m.name("service-special"))), b.AddChain(chain(m.name("service-restricted")))
	goTo := func(to *nft.Chain) []expr.Any { return then(expr.VerdictGoto, to.Name) }
	twice := func(to *nft.Chain, in, chains *nft.Set) {
		b.rule(to, "", m.byVIP(in), byClass(chains))
		b.rule(to, again, m.byVIP(in), byClass(chains))
	}
	twice(main, m.classes, m.dispatch)
	b.rule(main, "other ports", of(m.family), []expr.Any{destination(m.family, word0), in(s.clusterIPs[m.family])}, then(expr.VerdictGoto, "service-reject"))
	b.rule(main, "addresses that no Service has", of(m.family), []expr.Any{destination(m.family, word0), in(s.cidrs[m.family])}, then(expr.VerdictGoto, "service-drop"))

	after := word0 + headers[m.family].words
	b.rule(restricted, "", of(m.family), []expr.Any{
		destination(m.family, word0), meta(expr.MetaKeyL4PROTO, after),
		// It does nothing to one byte; nft puts it into keys of intervals.
		&expr.Byteorder{SourceRegister: after, DestRegister: after, Op: expr.ByteorderHton, Len: 1, Size: 2},
		destinationPort(after + 1), source(m.family, after+2), notIn(m.ranges),
	}, then(expr.VerdictGoto, "service-drop"))
	b.rule(restricted, "", goTo(special))
	b.rule(special, "pods", of(m.family), []expr.Any{source(m.family, word0), in(s.pods[m.family])}, goTo(inside))
	b.rule(special, "the node itself", fromLocal(), goTo(inside))
	twice(special, m.outside, m.answers)
	twice(inside, m.inside, m.answers)

	var all []nft.SetElement
	for class, name := range map[uint32]string{
		classReject: "service-reject", classDrop: "service-drop",
		classSpecial: special.Name, classRestricted: restricted.Name,
	} {
		all = append(all, verdict(class, name))
	}
	b.elements = append(b.elements, nil, nil)
	if err := b.SetAddElements(m.dispatch, all); err != nil {
		return fmt.Errorf("add to map %s: %w", m.dispatch.Name, err)
	}
	some := []nft.SetElement{verdict(classReject, "service-reject"), verdict(classDrop, "service-drop")}
	if err := b.SetAddElements(m.answers, some); err != nil {
		return fmt.Errorf("add to map %s: %w", m.answers.Name, err)
	}
	return nil
}

func verdict(class uint32, chain string) nft.SetElement {
	return nft.SetElement{Key: native(class), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

// fromLocal matches packets from the node's own addresses.
func fromLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: word0, FlagSADDR: true, ResultADDRTYPE: true}, equal(native(unix.RTN_LOCAL)...),
	}
}

// addClass adds a class, and its chain unless it has one.
func (u *update) addClass(b *batch, d dispatched) error {
	m := &u.families[d.family]
	c := u.stays.read(d.class)
	to := chain(m.name("services") + "-" + c.String())
	other := d
	other.answers = !d.answers
	if !u.has(other) {
		b.AddChain(to)
		if err := m.fill(b, to, c); err != nil {
			return err
		}
	}
	set := m.dispatch
	if d.answers {
		set = m.answers
	}
	b.elements = append(b.elements, nil)
	if err := b.SetAddElements(set, []nft.SetElement{verdict(d.class, to.Name)}); err != nil {
		return fmt.Errorf("add to map %s: %w", set.Name, err)
	}
	return nil
}

// fill adds the rules that choose one of so many targets. They end with a drop,
// which nobody meets: a packet that went on untranslated would be remembered as
// a connection to the VIP itself.
func (m *serviceMaps) fill(b *batch, to *nft.Chain, c choice) error {
	ids := m.ids
	if c.inside {
		ids = m.insideIDs
	}
	if c.stay != 0 {
		if err := m.fillSticky(b, to, c, ids); err != nil {
			return err
		}
	}
	for i, count := range []uint32{c.count, 1} {
		comment, first := "", m.byVIP(ids)
		if i > 0 {
			comment, first = "Service, looked up again as it changed", counted(first...)
		}
		b.rule(to, comment, first)
		target := slices.Concat(slot(count), []expr.Any{mapped(m.slots), toPod(m.family)})
		if c.stay != 0 {
			b.rule(to, comment, slot(count), []expr.Any{mapped(m.picks), setPriority()})
			target = m.toName()
		}
		ports, err := b.withPorts()
		if err != nil {
			return err
		}
		b.rule(to, comment, ports, target)
	}
	b.rule(to, "Service whose targets were not found", standing(), counted(then(expr.VerdictDrop, "")...))
	return nil
}

// withPorts matches protocols that have ports, which nft asks for where a port
// is translated.
func (b *batch) withPorts() ([]expr.Any, error) {
	var protocols []nft.SetElement
	for _, protocol := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
		protocols = append(protocols, nft.SetElement{Key: []byte{byte(protocol)}})
	}
	set, err := b.literal(nft.TypeInetProto, protocols...)
	if err != nil {
		return nil, err
	}
	return []expr.Any{meta(expr.MetaKeyL4PROTO, word0), in(set)}, nil
}

// slot is a key of a pool, which is the priority, and one of so many slots.
func slot(count uint32) []expr.Any {
	return []expr.Any{
		meta(expr.MetaKeyPRIORITY, word0), &expr.Numgen{Register: word1, Type: unix.NFT_NG_RANDOM, Modulus: count},
	}
}

// fillSticky adds the rules that find where a client stays, and bind it. A
// client whose target is gone is bound anew. Who finds the map of clients full
// goes on to the rules for clients that do not stay.
func (m *serviceMaps) fillSticky(b *batch, to *nft.Chain, c choice, ids *nft.Set) error {
	// The pool is in the upper bits of where the client goes.
	pool := &expr.Bitwise{
		SourceRegister: m.afterClient(), DestRegister: m.afterClient(), Len: 4,
		Mask: native(^uint32(mostSticky - 1)), Xor: native(0),
	}
	bind := append(m.client(), pool, meta(expr.MetaKeyPRIORITY, word4), m.remember(unix.NFT_DYNSET_OP_UPDATE, c.stay))
	b.rule(to, "", m.byVIP(ids))
	ports, err := b.withPorts()
	if err != nil {
		return err
	}
	b.rule(to, "clients that stay", of(m.family), m.client(),
		[]expr.Any{mapped(m.affinity), setPriority()}, bind, ports, m.toName())
	b.rule(to, "", m.byVIP(ids))
	b.rule(to, "their target is gone", of(m.family), m.client(),
		[]expr.Any{meta(expr.MetaKeyPRIORITY, word4), m.remember(dynsetDelete, 0)})
	if ports, err = b.withPorts(); err != nil {
		return err
	}
	b.rule(to, "clients that come", slot(c.count), []expr.Any{mapped(m.picks), setPriority()}, of(m.family), bind, ports, m.toName())
	return nil
}

// toName translates to the target whose name is the priority.
func (m *serviceMaps) toName() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyPRIORITY, word0), mapped(m.targets), toPod(m.family)}
}

// dynsetDelete is NFT_DYNSET_OP_DELETE (Linux 5.4).
const dynsetDelete = 2

// client loads a client, and a pool if that is the priority.
func (m *serviceMaps) client() []expr.Any {
	h, length := headers[m.family], clientLength[m.family]
	return []expr.Any{address(h.source+h.length-length, length, word0), meta(expr.MetaKeyPRIORITY, m.afterClient())}
}

func (m *serviceMaps) afterClient() uint32 { return word0 + clientLength[m.family]/4 }

// remember changes where a client goes to what is in the fifth register. An
// entry that is there keeps its value, and its time begins anew.
func (m *serviceMaps) remember(operation, seconds uint32) expr.Any {
	return &expr.Dynset{
		SrcRegKey: word0, SrcRegData: word4, SetName: m.affinity.Name, SetID: m.affinity.ID,
		Operation: operation, Timeout: time.Duration(seconds) * time.Second,
	}
}

// calledChain looks up the VIP that a connection was made to.
const calledChain = "service-called"

// addSources adds the chains that give packets to targets of Services an
// address of the node. Those that fillSources fills are empty.
func (p *Plane) addSources(b *batch) {
	b.AddChain(chain("service-source"))
	b.AddChain(chain("service-masquerade"))
	b.AddChain(chain("service-masquerade-node"))
	called := b.AddChain(chain(calledChain))
	for i := range p.services.families {
		m := &p.services.families[i]
		after := word0 + headers[m.family].words
		for _, protocol := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
			b.rule(called, "", []expr.Any{meta(expr.MetaKeyL4PROTO, word0), equal(byte(protocol))}, []expr.Any{
				originalDestination(m.family), meta(expr.MetaKeyL4PROTO, after), originalPort(after + 1),
				mapped(m.sources), setPriority(),
			})
		}
	}
}

// fillSources adds the rules that say whose packets are masqueraded.
func (p *Plane) fillSources(b *batch) {
	from, masquerade, node := chain("service-source"), chain("service-masquerade"), chain("service-masquerade-node")
	for _, family := range model.Families {
		b.rule(from, "pods that reach themselves", of(family), []expr.Any{
			source(family, word0), destination(family, word0+headers[family].words), in(p.serviceHairpins.sets[family]),
		}, counted(p.rules.own(family)...))
	}
	is := func(whose service.Masquerade) []expr.Any {
		return []expr.Any{meta(expr.MetaKeyPRIORITY, word0), equal(native(uint32(whose))...)}
	}
	to := then(expr.VerdictGoto, masquerade.Name)
	b.rule(from, "", noPriority())
	b.rule(from, "", then(expr.VerdictJump, calledChain))
	b.rule(from, "", is(service.FromAll), to)
	b.rule(from, "", is(service.FromNode), fromLocal(), to)
	for _, family := range model.Families {
		b.rule(from, "", is(service.FromOutside), of(family), []expr.Any{source(family, word0), notIn(p.cluster.sets[family])}, to)
	}
	b.rule(from, "", noPriority())

	b.rule(masquerade, "", noPriority())
	if p.rules.randomPorts {
		b.rule(masquerade, "", fromLocal(), then(expr.VerdictGoto, node.Name))
		p.fillMasquerade(b, node, false)
	}
	p.fillMasquerade(b, masquerade, p.rules.randomPorts)
}

// fillMasquerade adds the rules that give packets to targets of Services an address of
// the node. The node's own connections keep their ports: its sockets use one again as
// late as they can, and with timestamps that go on, while a port at random may be that
// of a connection which the target remembers for a minute (TIME-WAIT). To its SYN the
// target answers with an ACK of the old one (RFC 9293, 3.10.7.8), and the new one begins
// 8 ms later.
func (p *Plane) fillMasquerade(b *batch, masquerade *nft.Chain, randomPorts bool) {
	for _, family := range model.Families {
		b.rule(masquerade, "Service, with the address of the node", of(family), toPods(), counted(p.rules.own(family)...))
		// Without a rule of its own, it would be that of any interface.
		b.rule(masquerade, "Service, with the address of the node", of(family), by("lo"), counted(p.rules.own(family)...))
	}
	// The kernel ends a connection that it has given the address of an interface if
	// it changes to another one (nf_nat_oif_changed), as those to pods do when the
	// way between nodes changes. So these get an address by name.
	for _, family := range model.Families {
		if end := p.rules.ends[family]; end.IsValid() {
			b.rule(masquerade, "Service, with the node's address in tunnels", of(family), byTunnel(), counted(translate(family, end, randomPorts)...))
		}
		if own := p.rules.inside[family]; own.IsValid() {
			b.rule(masquerade, "Service, to pods of peers, with the address of the node", of(family),
				[]expr.Any{destination(family, word0), in(p.cluster.sets[family])}, counted(translate(family, own, randomPorts)...))
		}
	}
	b.rule(masquerade, "Service, with the address of the interface", counted(&expr.Masq{FullyRandom: randomPorts}))
}

// ipsSrcNAT and ipsDstNAT are IPS_SRC_NAT and IPS_DST_NAT of enum
// ip_conntrack_status.
const (
	ipsSrcNAT = 1 << 4
	ipsDstNAT = 1 << 5
)

// translated matches packets of connections whose source, or destination, is.
func translated(which uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: word0},
		&expr.Bitwise{SourceRegister: word0, DestRegister: word0, Len: 4, Mask: native(which), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: word0, Data: native(0)},
	}
}

// originalDestination loads the address that a connection was made to. The
// library cannot say of which family, so another key stands for it until
// fixOriginal.
func originalDestination(family model.Family) *expr.Ct {
	return &expr.Ct{Key: originals[family].standIn, Register: word0}
}

var originals = [...]struct {
	standIn, key expr.CtKey
}{
	model.IPv4: {expr.CtKeySRC, unix.NFT_CT_DST_IP},
	model.IPv6: {expr.CtKeyDST, unix.NFT_CT_DST_IP6},
}

// originalPort loads the port that a connection was made to.
func originalPort(register uint32) *expr.Ct {
	return &expr.Ct{Key: expr.CtKeyPROTODST, Register: register}
}

// fixOriginal mends an encoded rule: keys that others stand for, and the
// direction of a connection, which is one byte and not four.
func fixOriginal(rule []byte) ([]byte, error) {
	for _, family := range model.Families {
		for _, part := range []*expr.Ct{originalDestination(family), originalPort(word0 + headers[family].words + 1)} {
			from, err := expr.Marshal(unix.NFPROTO_INET, part)
			if err != nil {
				return nil, fmt.Errorf("encode a part of a connection: %w", err)
			}
			key := part.Key
			if key == originals[family].standIn {
				key = originals[family].key
			}
			to := bytes.Replace(from, ctAttribute(unix.NFTA_CT_KEY, byte(part.Key), 4), ctAttribute(unix.NFTA_CT_KEY, byte(key), 4), 1)
			to = bytes.Replace(to, ctAttribute(unix.NFTA_CT_DIRECTION, 0, 4), ctAttribute(unix.NFTA_CT_DIRECTION, 0, 1), 1)
			rule = bytes.ReplaceAll(rule, from, to)
		}
	}
	return rule, nil
}

// ctAttribute is a netlink attribute with a number of so many bytes, padded.
func ctAttribute(kind uint16, value byte, length int) []byte {
	attribute := binary.NativeEndian.AppendUint16(nil, uint16(4+length))
	attribute = append(binary.NativeEndian.AppendUint16(attribute, kind), 0, 0, 0, 0)
	attribute[4+length-1] = value
	return attribute
}
