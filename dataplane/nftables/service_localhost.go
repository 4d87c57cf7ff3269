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
// setting route_localnet is on, which node ports at 127.0.0.1 need, and which is
// then left as it is: anybody on the link could else reach servers of the node
// that trust 127.0.0.1, or speak as one of their clients (CVE-2020-8558). The
// rules are there always, so that there is no moment with the one and without
// the other. Answers to the node's own packets have other addresses here yet.
func guardLoopback(b *batch, prerouting *nft.Chain) {
	b.rule(prerouting, "to the node's loopback interface, from elsewhere",
		loopback(headers[model.IPv4].dest), notFrom("lo"), counted(then(expr.VerdictDrop, "")...))
	b.rule(prerouting, "as if from the node's loopback interface",
		loopback(headers[model.IPv4].source), notFrom("lo"), counted(then(expr.VerdictDrop, "")...))
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
