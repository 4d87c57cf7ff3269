package nftables

import (
	"encoding/binary"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// The expressions that rules are made of, written as nft writes them, so that
// it can list them again. They load into registers of 4 bytes, numbered from
// word0; values longer than that take several, and a concatenation lies in
// registers one after the other.
const (
	word0 = unix.NFT_REG32_00
	word1 = word0 + 1
	word2 = word0 + 2
	word4 = word0 + 4
	word8 = word0 + 8
)

// rule appends a rule to a chain.
func (b *batch) rule(chain *nft.Chain, comment string, parts ...[]expr.Any) {
	rule := &nft.Rule{Table: chain.Table, Chain: chain}
	for _, part := range parts {
		rule.Exprs = append(rule.Exprs, part...)
	}
	if comment != "" {
		rule.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	}
	if b.doubled && chain.Hooknum != nil {
		double := *rule
		double.Chain = doubleOf(chain)
		b.AddRule(&double)
	}
	b.AddRule(rule)
}

// header is where a family has things.
type header struct {
	protocol             byte // NFPROTO_*
	etherType            uint16
	source, dest, length uint32 // offsets and length of addresses, in bytes
	words                uint32 // length in registers
}

var headers = [...]header{
	model.IPv4: {unix.NFPROTO_IPV4, unix.ETH_P_IP, 12, 16, 4, 1},
	model.IPv6: {unix.NFPROTO_IPV6, unix.ETH_P_IPV6, 8, 24, 16, 4},
}

// equal compares what was loaded last into the first register.
func equal(value ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: word0, Data: value}
}

func native(value uint32) []byte { return binary.NativeEndian.AppendUint32(nil, value) }

func meta(key expr.MetaKey, register uint32) expr.Any {
	return &expr.Meta{Key: key, Register: register}
}

// of matches packets of a family.
func of(family model.Family) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO, word0), equal(headers[family].protocol)}
}

// overEthernet matches packets that came as frames of Ethernet.
func overEthernet() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyIIFTYPE, word0), equal(binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)...)}
}

func etherSource(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}
}

func address(offset, length, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func source(family model.Family, register uint32) expr.Any {
	return address(headers[family].source, headers[family].length, register)
}

func destination(family model.Family, register uint32) expr.Any {
	return address(headers[family].dest, headers[family].length, register)
}

// toUDP matches packets to a port of UDP.
func toUDP(port uint16) []expr.Any {
	return []expr.Any{
		meta(expr.MetaKeyL4PROTO, word0), equal(unix.IPPROTO_UDP),
		destinationPort(word0), equal(binary.BigEndian.AppendUint16(nil, port)...),
	}
}

func destinationPort(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// toPort and fromPort match packets of any protocol that has ports, and some of
// those that have none.
func toPort(port uint16) []expr.Any {
	return []expr.Any{destinationPort(word0), equal(binary.BigEndian.AppendUint16(nil, port)...)}
}

func fromPort(port uint16) []expr.Any {
	return []expr.Any{sourcePort(word0), equal(binary.BigEndian.AppendUint16(nil, port)...)}
}

func sourcePort(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Len: 2}
}

// The network of IPv4's loopback interface, 127.0.0.0/8, by its first byte.
func loopback(offset uint32) []expr.Any {
	return append(of(model.IPv4), address(offset, 1, word0), equal(127))
}

// local matches packets to the node's own addresses.
func local() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: word0, FlagDADDR: true, ResultADDRTYPE: true}, equal(native(unix.RTN_LOCAL)...),
	}
}

// in looks up what begins in the first register.
func in(set *nft.Set) expr.Any {
	return &expr.Lookup{SourceRegister: word0, SetName: set.Name, SetID: set.ID}
}

func notIn(set *nft.Set) expr.Any {
	return &expr.Lookup{SourceRegister: word0, SetName: set.Name, SetID: set.ID, Invert: true}
}

// mapped looks up what begins in the first register, and what is found replaces
// it.
func mapped(set *nft.Set) expr.Any {
	return &expr.Lookup{SourceRegister: word0, DestRegister: word0, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}
}

func fromPods() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyIIFGROUP, word0), equal(native(model.PodGroup)...)}
}

func toPods() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyOIFGROUP, word0), equal(native(model.PodGroup)...)}
}

func then(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func counted(exprs ...expr.Any) []expr.Any { return append([]expr.Any{&expr.Counter{}}, exprs...) }
