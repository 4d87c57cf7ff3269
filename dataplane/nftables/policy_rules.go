package nftables

import (
	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// The chains of policies. A packet that begins a connection of a pod takes, once
// for each end that is a pod of this node,
//
//	policy-ingress -> policy-ingress4 [-> policy-ingress4-peer [-> policy-ingress4-cell] -> policy-row]
//
// and comes back with the priority 0, or with the number of the rule that denies
// it. Each step is a few lookups, whatever there is of policies, pods and CIDRs.

// DeniedLogGroup is the group of nfnetlink_log that is told of packets that are
// denied, with their first bytes; not of all, if they are many. The mark of such
// a packet is what DeniedBy reads.
const DeniedLogGroup = 175

const (
	deniedPerSecond, deniedAtOnce = 10, 50
	deniedBytes                   = 128
)

// addChains adds all chains of policies.
func (s *policies) addChains(b *batch) error {
	row := b.AddChain(chain(rowChain))
	s.fillRow(b, row)
	for _, direction := range model.Directions {
		for i := range s.families {
			s.addFamilyChains(b, &s.families[i], direction)
		}
		main := b.AddChain(chain("policy-" + direction.String()))
		b.rule(main, "", noPriority()) // the kernel has made one of the type of service
		for i := range s.families {
			m := &s.families[i]
			b.rule(main, "", of(m.family), then(expr.VerdictJump, m.chain(direction)))
		}
		b.rule(main, "", hasPriority(0), then(expr.VerdictReturn, ""))
		s.fillDenied(b, main, direction)
	}
	s.addSent(b)
	input := b.AddChain(&nft.Chain{
		Name: "input", Table: ourTable(), Type: nft.ChainTypeFilter,
		Hooknum: nft.ChainHookInput, Priority: nft.ChainPriorityFilter,
	})
	guardLoopback(b, input)
	b.rule(input, "", established(), then(expr.VerdictAccept, ""))
	if s.cut {
		b.addMidstream(input)
	}
	here := b.AddChain(chain("policy-sent-here"))
	types, err := b.discoveryTypes()
	if err != nil {
		return err
	}
	b.rule(here, "neighbour and listener discovery", types, then(expr.VerdictAccept, ""))
	b.rule(here, "", then(expr.VerdictGoto, sentChain))
	b.rule(input, "", fromPods(), then(expr.VerdictJump, here.Name))
	return nil
}

// fillForward makes the chain that judges what is forwarded, or sees to it that
// there is none: where no pod is restricted, a packet of a connection that is there
// should not pay for a chain that has nothing to say.
func (s *policies) fillForward(b *batch, wanted bool) {
	forward := b.AddChain(&nft.Chain{ // lest there is none to flush
		Name: "forward", Table: ourTable(), Type: nft.ChainTypeFilter,
		Hooknum: nft.ChainHookForward, Priority: nft.ChainPriorityFilter,
	})
	b.FlushChain(forward)
	if !wanted {
		b.DelChain(forward)
		return
	}
	speaksAsLoopback(b, forward) // before all else: it could be taken for a packet of the node's own connection
	b.rule(forward, "", established(), then(expr.VerdictAccept, ""))
	if s.cut {
		fromMidstream(b, forward)
		toMidstream(b, forward)
	}
	b.rule(forward, "", fromPods(), then(expr.VerdictJump, sentChain))
	b.rule(forward, "", toPods(), then(expr.VerdictJump, "policy-ingress"))
}

// sentChain judges what pods send, but for queries, which were judged before they
// were translated.
const sentChain = "policy-sent"

func (s *policies) addSent(b *batch) {
	sent := b.AddChain(chain(sentChain))
	for i := range s.families {
		m := &s.families[i]
		after := word0 + headers[m.family].words
		for _, protocol := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
			b.rule(sent, "", translated(ipsDstNAT), []expr.Any{meta(expr.MetaKeyL4PROTO, word0), equal(byte(protocol))}, []expr.Any{
				originalDestination(m.family), meta(expr.MetaKeyL4PROTO, after), originalPort(after + 1), in(m.asked),
			}, then(expr.VerdictReturn, ""))
		}
	}
	b.rule(sent, "", then(expr.VerdictGoto, "policy-egress"))
}

// judgeQueries judges queries of pods in a chain that meets only the first packet
// of a connection, before it is translated. Those that are not tracked are not,
// and meet none: they are the node's own to answer, and judged in input.
func (s *policies) judgeQueries(b *batch, first *nft.Chain) {
	for i := range s.families {
		m := &s.families[i]
		after := word0 + headers[m.family].words
		b.rule(first, "queries of pods", fromPods(), of(m.family), []expr.Any{
			destination(m.family, word0), meta(expr.MetaKeyL4PROTO, after), destinationPort(after + 1), in(m.queries),
		}, then(expr.VerdictJump, "policy-egress"))
	}
}

// discoveryTypes matches what no policy is asked about.
func (b *batch) discoveryTypes() ([]expr.Any, error) {
	var messages []nft.SetElement
	for _, icmpType := range []byte{130, 131, 132, 133, 134, 135, 136, 143} {
		messages = append(messages, nft.SetElement{Key: []byte{icmpType}})
	}
	types, err := b.literal(nft.TypeICMP6Type, messages...)
	if err != nil {
		return nil, err
	}
	return append(of(model.IPv6), meta(expr.MetaKeyL4PROTO, word0), equal(unix.IPPROTO_ICMPV6),
		&expr.Payload{DestRegister: word0, Base: expr.PayloadBaseTransportHeader, Len: 1}, in(types)), nil
}

// established matches packets of connections that are there, and errors of them.
func established() []expr.Any {
	return inState(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
}

// inState matches packets of connections in one of some states.
func inState(states uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: word0},
		&expr.Bitwise{SourceRegister: word0, DestRegister: word0, Len: 4, Mask: native(states), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: word0, Data: native(0)},
	}
}

func hasPriority(number uint32) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyPRIORITY, word0), equal(native(number)...)}
}

// fillDenied counts, logs and drops what a rule denies, whose number is the
// priority. That the rule is found says, too, that the table is not on its way out:
// what maps of ranges say is found a while longer (see standing), and may be what is
// said of others, as the group of who sends was not found any more.
func (s *policies) fillDenied(b *batch, main *nft.Chain, direction model.Direction) {
	to := b.AddChain(chain("policy-drop-" + direction.String()))
	b.rule(to, "", logged(direction.String()))
	b.rule(to, "denied by a policy: "+direction.String()+" of a pod", counted(then(expr.VerdictDrop, "")...))

	b.rule(main, "", []expr.Any{
		meta(expr.MetaKeyPRIORITY, word0), mapped(s.denied[direction]),
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: word0},
	}, then(expr.VerdictGoto, to.Name))
	b.dropUnfound(main)
}

// logged logs packets with the direction, or with LogUnfound, unless they are too
// many.
func logged(what string) []expr.Any {
	return []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: deniedPerSecond, Unit: expr.LimitTimeSecond, Burst: deniedAtOnce},
		&expr.Log{
			Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN | 1<<unix.NFTA_LOG_PREFIX,
			Group: DeniedLogGroup, Snaplen: deniedBytes, Data: []byte("fairlead " + what),
		},
	}
}

func (m *policyMaps) chain(direction model.Direction) string {
	return "policy-" + direction.String() + [...]string{"4", "6"}[m.family]
}

// addFamilyChains adds those that find the row.
func (s *policies) addFamilyChains(b *batch, m *policyMaps, direction model.Direction) {
	name := m.chain(direction)
	first, peer, cell := b.AddChain(chain(name)), b.AddChain(chain(name+"-peer")), b.AddChain(chain(name+"-cell"))
	pod, other := destination, source
	if direction == model.Egress {
		pod, other = source, destination
	}
	ofCell := append(of(m.family), meta(expr.MetaKeyPRIORITY, word0), pod(m.family, word1), mapped(m.cells[direction]), setPriority())
	goTo := func(chain string) []expr.Any { return then(expr.VerdictGoto, chain) }
	twice := func(in *nft.Chain, parts ...[]expr.Any) {
		b.rule(in, "", parts...)
		b.rule(in, again, parts...)
	}
	twice(first, ofCell, goTo(peer.Name))

	b.rule(peer, "not restricted any more", hasPriority(rowNone), noPriority(), then(expr.VerdictReturn, ""))
	both := []expr.Any{pod(m.family, word0), other(m.family, word0+headers[m.family].words), in(m.itself)}
	b.rule(peer, "pods that reach themselves by a Service", of(m.family), both,
		[]expr.Any{&expr.Immediate{Register: word0, Data: native(groupItself)}, setPriority()}, goTo(cell.Name))
	for _, members := range []*nft.Set{m.pods, m.ranges} {
		twice(peer, of(m.family), []expr.Any{other(m.family, word0), mapped(members), setPriority()}, goTo(cell.Name))
	}
	b.rule(peer, "others", goTo(rowChain))

	twice(cell, ofCell, goTo(rowChain))
	b.rule(cell, "as for others", noPriority())
	twice(cell, ofCell, goTo(rowChain))
	b.dropUnfound(cell)
}

// unfound is said of a packet of which nothing tells whether it is allowed.
const unfound = "policy that was not found"

// LogUnfound is in the prefix of the log of such a packet, where that of another
// has the direction. Its mark says nothing.
const LogUnfound = "unfound"

func (b *batch) dropUnfound(in *nft.Chain) {
	b.rule(in, "", standing(), logged(LogUnfound))
	b.rule(in, unfound, standing(), counted(then(expr.VerdictDrop, "")...))
	b.rule(in, "a table that goes: the next one judges", noPriority())
}

// rowChain looks up the port in a row.
const rowChain = "policy-row"

// fillRow adds the rules that look up the port, which end in the number of the
// rule that denies it, or 0.
func (s *policies) fillRow(b *batch, row *nft.Chain) {
	b.rule(row, "all is allowed", hasPriority(rowAll), noPriority(), then(expr.VerdictReturn, ""))
	b.rule(row, "not restricted any more", hasPriority(rowNone), noPriority(), then(expr.VerdictReturn, ""))
	found := append([]expr.Any{setPriority()}, then(expr.VerdictReturn, "")...)
	priority, protocol, port := meta(expr.MetaKeyPRIORITY, word0), meta(expr.MetaKeyL4PROTO, word1), destinationPort(word1+1)
	b.rule(row, "", []expr.Any{priority, protocol, port, mapped(s.ports)}, found)
	b.rule(row, "", []expr.Any{
		priority, &expr.Byteorder{SourceRegister: word0, DestRegister: word0, Op: expr.ByteorderHton, Len: 4, Size: 4},
		// It does nothing to one byte; nft puts it into keys of intervals.
		protocol, &expr.Byteorder{SourceRegister: word1, DestRegister: word1, Op: expr.ByteorderHton, Len: 1, Size: 2},
		port, mapped(s.portRanges),
	}, found)
	b.rule(row, "", []expr.Any{priority, protocol, mapped(s.protocols)}, found)
	b.rule(row, "", []expr.Any{priority, mapped(s.defaults)}, found)
	b.dropUnfound(row)
}
