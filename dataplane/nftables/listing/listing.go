// Package listing lists chains and rules of nftables, whoever made them. The library takes
// a listing for whole that a change has interrupted. It wants to know all of a rule, and
// fails for the whole chain on one expression that it reads wrongly, as it reads "ct
// original" (google/nftables#317, in no release yet); others it leaves out, so that a rule
// seems to be about more packets than it is. The functions here are of the network
// namespace of the calling thread, and may be called concurrently.
package listing

import (
	"encoding/binary"
	"fmt"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/whole"
)

// Opaque is an expression of which only the name in the kernel is known.
type Opaque struct {
	expr.Any
	Name string
}

// Rules lists the rules of a chain, in order, as the library does; none if there is no such
// chain.
func Rules(chain *nft.Chain) ([]*nft.Rule, error) {
	found, err := whole.List(func() ([]*nft.Rule, error) { return list(chain) })
	if err != nil {
		return nil, fmt.Errorf("list rules of chain %s of table %s: %w", chain.Name, chain.Table.Name, err)
	}
	return found, nil
}

func list(chain *nft.Chain) (found []*nft.Rule, err error) {
	err = dump(unix.NFT_MSG_GETRULE, chain.Table.Family, func(_ nft.TableFamily, attributes *netlink.AttributeDecoder) {
		rule := &nft.Rule{Table: chain.Table, Chain: chain}
		readRule(rule, attributes)
		found = append(found, rule)
	}, nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(chain.Table.Name)), nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain.Name)))
	return found, err
}

// Chains lists all chains of a family, or of all (nft.TableFamilyUnspecified), of what is
// told here: names, and of base chains where they are.
func Chains(family nft.TableFamily) ([]*nft.Chain, error) {
	found, err := whole.List(func() ([]*nft.Chain, error) { return listChains(family) })
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	return found, nil
}

func listChains(family nft.TableFamily) (found []*nft.Chain, err error) {
	err = dump(unix.NFT_MSG_GETCHAIN, family, func(family nft.TableFamily, attributes *netlink.AttributeDecoder) {
		chain := &nft.Chain{Table: &nft.Table{Family: family}}
		readChain(chain, attributes)
		found = append(found, chain)
	})
	return found, err
}

// dump has the family and the attributes of each object read that the kernel tells of.
// That it was interrupted may be said by the message that ends it alone, which
// mdlayher/netlink keeps to itself.
func dump(kind int, family nft.TableFamily, read func(nft.TableFamily, *netlink.AttributeDecoder), which ...nl.NetlinkRequestData) error {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: byte(family), Version: nl.NFNETLINK_V0})
	for _, attribute := range which {
		request.AddData(attribute)
	}
	answers, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	for _, answer := range answers {
		if len(answer) < nl.SizeofNfgenmsg {
			continue
		}
		attributes, err := netlink.NewAttributeDecoder(answer[nl.SizeofNfgenmsg:])
		if err != nil {
			return err
		}
		attributes.ByteOrder = binary.BigEndian
		read(nft.TableFamily(answer[0]), attributes)
		if err := attributes.Err(); err != nil {
			return err
		}
	}
	return nil
}

// readChain reads a message of NFT_MSG_NEWCHAIN.
func readChain(chain *nft.Chain, attributes *netlink.AttributeDecoder) {
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_CHAIN_TABLE:
			chain.Table.Name = attributes.String()
		case unix.NFTA_CHAIN_NAME:
			chain.Name = attributes.String()
		case unix.NFTA_CHAIN_TYPE:
			chain.Type = nft.ChainType(attributes.String())
		case unix.NFTA_CHAIN_POLICY:
			policy := nft.ChainPolicy(attributes.Uint32())
			chain.Policy = &policy
		case unix.NFTA_CHAIN_HOOK:
			attributes.Nested(func(hook *netlink.AttributeDecoder) error {
				hook.ByteOrder = binary.BigEndian
				for hook.Next() {
					switch hook.Type() {
					case unix.NFTA_HOOK_HOOKNUM:
						chain.Hooknum = nft.ChainHookRef(nft.ChainHook(hook.Uint32()))
					case unix.NFTA_HOOK_PRIORITY:
						chain.Priority = nft.ChainPriorityRef(nft.ChainPriority(hook.Uint32()))
					}
				}
				return nil
			})
		}
	}
}

// readRule reads a message of NFT_MSG_NEWRULE.
func readRule(rule *nft.Rule, attributes *netlink.AttributeDecoder) {
	family := byte(rule.Table.Family)
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_RULE_HANDLE:
			rule.Handle = attributes.Uint64()
		case unix.NFTA_RULE_USERDATA:
			rule.UserData = attributes.Bytes()
		case unix.NFTA_RULE_EXPRESSIONS:
			attributes.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(expression *netlink.AttributeDecoder) error {
						rule.Exprs = append(rule.Exprs, readExpression(family, expression))
						return nil
					})
				}
				return nil
			})
		}
	}
}

func readExpression(family byte, attributes *netlink.AttributeDecoder) expr.Any {
	var name string
	var data []byte
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_EXPR_NAME:
			name = attributes.String()
		case unix.NFTA_EXPR_DATA:
			data = attributes.Bytes()
		}
	}
	known, ok := expressions[name]
	if !ok {
		return Opaque{Name: name}
	}
	is := known()
	err := expr.Unmarshal(family, data, is)
	switch e := is.(type) {
	case *expr.Immediate:
		if e.Register == unix.NFT_REG_VERDICT {
			is = &expr.Verdict{}
			err = expr.Unmarshal(family, data, is)
		}
	case *expr.Ct:
		err = readDirection(e, data)
	}
	if err != nil {
		return Opaque{Name: name}
	}
	return is
}

// readDirection reads what the library takes for four bytes.
func readDirection(ct *expr.Ct, data []byte) error {
	attributes, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return err
	}
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_CT_KEY:
			ct.Key = expr.CtKey(attributes.Uint32())
		case unix.NFTA_CT_DREG:
			ct.Register = attributes.Uint32()
		case unix.NFTA_CT_SREG:
			ct.Register, ct.SourceRegister = attributes.Uint32(), true
		case unix.NFTA_CT_DIRECTION:
			ct.Direction = uint32(attributes.Uint8())
		}
	}
	return attributes.Err()
}

// expressions are those that are read, by their names in the kernel.
var expressions = map[string]func() expr.Any{
	"bitwise":   func() expr.Any { return &expr.Bitwise{} },
	"byteorder": func() expr.Any { return &expr.Byteorder{} },
	"cmp":       func() expr.Any { return &expr.Cmp{} },
	"counter":   func() expr.Any { return &expr.Counter{} },
	"ct":        func() expr.Any { return &expr.Ct{} },
	"dynset":    func() expr.Any { return &expr.Dynset{} },
	"exthdr":    func() expr.Any { return &expr.Exthdr{} },
	"fib":       func() expr.Any { return &expr.Fib{} },
	"hash":      func() expr.Any { return &expr.Hash{} },
	"immediate": func() expr.Any { return &expr.Immediate{} }, // or a verdict
	"limit":     func() expr.Any { return &expr.Limit{} },
	"log":       func() expr.Any { return &expr.Log{} },
	"lookup":    func() expr.Any { return &expr.Lookup{} },
	"masq":      func() expr.Any { return &expr.Masq{} },
	"match":     func() expr.Any { return &expr.Match{} },
	"meta":      func() expr.Any { return &expr.Meta{} },
	"nat":       func() expr.Any { return &expr.NAT{} },
	"numgen":    func() expr.Any { return &expr.Numgen{} },
	"objref":    func() expr.Any { return &expr.Objref{} },
	"payload":   func() expr.Any { return &expr.Payload{} },
	"range":     func() expr.Any { return &expr.Range{} },
	"reject":    func() expr.Any { return &expr.Reject{} },
	"target":    func() expr.Any { return &expr.Target{} },
}
