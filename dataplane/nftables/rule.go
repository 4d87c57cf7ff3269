package nftables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	nft "github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// foreignRule is one of a chain, and as much of it as has to be known of others'. The
// library wants to know all of it, and fails for the whole chain on an expression that it
// reads wrongly, as "ct original" is (google/nftables#317, in no release yet).
type foreignRule struct {
	handle  uint64
	comment string       // as nft has written it, or iptables
	parts   []expression // in order
}

// expression is one of a rule.
type expression struct {
	name string // in the kernel
	what string // of a match or a target of iptables: its name there
	info []byte // of such: its arguments
	drop bool   // of an immediate: the verdict is to drop
}

// Attributes of linux/netfilter/nf_tables_compat.h, the same for matches and targets.
const extensionName, extensionInfo = 1, 3 // NFTA_MATCH_NAME, NFTA_TARGET_NAME; ..._INFO

// listRules lists the rules of a chain, in order. A listing that a change interrupts may
// lack one, or have one twice. It is an error that matches unix.ENOENT if there is no such
// chain.
func listRules(chain *nft.Chain) (all []foreignRule, err error) {
	r, err := openReader()
	if err != nil {
		return nil, err
	}
	defer r.close()
	err = r.send(byte(chain.Table.Family), unix.NFT_MSG_GETRULE, netlink.Request|netlink.Dump, func(attributes *netlink.AttributeEncoder) {
		attributes.String(unix.NFTA_RULE_TABLE, chain.Table.Name)
		attributes.String(unix.NFTA_RULE_CHAIN, chain.Name)
	})
	for done := false; err == nil && !done; {
		var messages []syscall.NetlinkMessage
		messages, done, err = r.receive()
		for _, message := range messages {
			rule, failed := readRule(message.Data)
			err = errors.Join(err, failed)
			all = append(all, rule)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list rules of chain %s: %w", chainOf(chain), err)
	}
	return all, nil
}

// readRule reads a message of NFT_MSG_NEWRULE.
func readRule(message []byte) (rule foreignRule, err error) {
	attributes, err := netlink.NewAttributeDecoder(message[min(generic, len(message)):])
	if err != nil {
		return rule, err
	}
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_RULE_HANDLE:
			rule.handle = attributes.Uint64()
		case unix.NFTA_RULE_USERDATA:
			if comment, ok := userdata.GetString(attributes.Bytes(), userdata.TypeComment); ok {
				rule.comment = comment
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			attributes.Nested(inside(unix.NFTA_LIST_ELEM, rule.readExpression))
		}
	}
	return rule, attributes.Err()
}

// readExpression adds one.
func (f *foreignRule) readExpression(attributes *netlink.AttributeDecoder) error {
	var e expression
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_EXPR_NAME: // is the first
			e.name = attributes.String()
		case unix.NFTA_EXPR_DATA:
			switch e.name {
			case "immediate":
				attributes.Nested(inside(unix.NFTA_IMMEDIATE_DATA, inside(unix.NFTA_DATA_VERDICT, e.readVerdict)))
			case "match", "target":
				attributes.Nested(e.readExtension)
			}
		}
	}
	if e.comments() && f.comment == "" {
		text, _, _ := bytes.Cut(e.info, []byte{0}) // struct xt_comment_info
		f.comment = string(text)
	}
	f.parts = append(f.parts, e)
	return nil
}

// readExtension reads a match or a target of iptables.
func (e *expression) readExtension(attributes *netlink.AttributeDecoder) error {
	for attributes.Next() {
		switch attributes.Type() {
		case extensionName:
			e.what = attributes.String()
		case extensionInfo:
			e.info = attributes.Bytes()
		}
	}
	return nil
}

// comments tells whether it only does that.
func (e *expression) comments() bool { return e.name == "match" && e.what == "comment" }

func (e *expression) readVerdict(attributes *netlink.AttributeDecoder) error {
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_VERDICT_CODE {
			e.drop = int32(attributes.Uint32()) == netfilterDrop
		}
	}
	return nil
}

// netfilterDrop is NF_DROP of linux/netfilter.h.
const netfilterDrop = 0

// drops tells whether the rule drops or refuses all packets that come to it.
func (f *foreignRule) drops() bool {
	for _, part := range f.parts {
		switch {
		case part.name == "counter", part.name == "log", part.comments():
		case part.name == "target":
			return part.what == "REJECT"
		default:
			return part.drop || part.name == "reject"
		}
	}
	return false
}
