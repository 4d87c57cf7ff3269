package nftables

import (
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
)

// guardLoopback drops packets to and from the network of IPv4's loopback
// interface that come in by another one. The kernel does so itself, unless its
// setting route_localnet is on, which host ports, and node ports at 127.0.0.1,
// need, and which is then left as it is: anybody on the link, or in a pod, could
// else reach servers of the node that trust 127.0.0.1, or speak as one of their
// clients (CVE-2020-8558). The rules are there always, so that there is no moment
// with the one and without the other.
//
// What is only forwarded is none of it. So the first packet of a connection is
// asked, before anybody translates where it goes, and what is delivered; and the
// packets of a connection that the node forwards cost nothing.
func guardLoopback(b *batch, input *nft.Chain) {
	begins := b.AddChain(&nft.Chain{
		Name: "loopback", Table: ourTable(), Type: nft.ChainTypeNAT,
		Hooknum: nft.ChainHookPrerouting, Priority: nft.ChainPriorityRef(*nft.ChainPriorityConntrack + 1),
	})
	delivered := b.AddChain(chain("loopback-delivered"))
	to, drop := loopback(headers[model.IPv4].dest), counted(then(expr.VerdictDrop, "")...)
	calls := func(in *nft.Chain, parts ...[]expr.Any) {
		b.rule(in, "to the node's loopback interface", append(slices.Clone(parts), fromPods(), drop)...)
		b.rule(in, "to the node's loopback interface, from elsewhere", append(slices.Clone(parts), drop)...)
	}
	calls(begins, to, notFrom("lo"))
	speaksAsLoopback(b, begins)

	speaksAsLoopback(b, input) // else it could be taken for a packet of a connection of the node with itself
	b.rule(input, "", to, notFrom("lo"), then(expr.VerdictJump, delivered.Name))
	// One that came to this address as it is would be of a connection of the node with
	// itself, or an error that tells of one.
	b.rule(delivered, "answers, which are translated by now", direction(reply), translated(ipsSrcNAT), then(expr.VerdictReturn, ""))
	b.rule(delivered, "others lead it there", direction(original), translated(ipsDstNAT), then(expr.VerdictReturn, ""))
	calls(delivered)
}

func speaksAsLoopback(b *batch, in *nft.Chain) {
	b.rule(in, "as if from the node's loopback interface",
		loopback(headers[model.IPv4].source), notFrom("lo"), counted(then(expr.VerdictDrop, "")...))
}

// original and reply are IP_CT_DIR_ORIGINAL and IP_CT_DIR_REPLY of the kernel: packets
// of who began the connection, and to it.
const original, reply = 0, 1

func direction(is byte) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: word0}, equal(is)}
}

// notFrom matches packets that came in by any other interface.
func notFrom(name string) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyIIFNAME, word0), &expr.Cmp{Op: expr.CmpOpNeq, Register: word0, Data: padded(name)}}
}

// by matches packets that go out by an interface.
func by(name string) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyOIFNAME, word0), equal(padded(name)...)}
}

// byTunnel matches what leaves by a tunnel of ours.
func byTunnel() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyOIFNAME, word0), equal([]byte(route.TunnelPrefix)...)}
}

func padded(name string) []byte {
	return slices.Concat([]byte(name), make([]byte, unix.IFNAMSIZ-len(name)))
}
