package nftables

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// The kernel keeps for nft what it does not need itself: how nft is to list a
// set, and of what expressions its elements are made. The library says less
// than nft 1.0.6 wants to know of our maps.

// Kinds of expressions, as nft numbers them in what it stores (enum expr_types).
const (
	nftPayload = 7
	nftMeta    = 9
	nftConcat  = 13
	nftNumgen  = 23
)

// Headers and fields of them, as nft numbers them (enum proto_desc_id, and
// those of iphdr_fields, ip6hdr_fields and thdr_fields).
var (
	nftDestination = [...][2]uint32{model.IPv4: {12, 12}, model.IPv6: {13, 9}}
	nftPort        = [2]uint32{11, 2}
)

// tlv is a type, a length of one byte, and a value.
func tlv(kind byte, values ...[]byte) []byte {
	value := slices.Concat(values...)
	return append([]byte{kind, byte(len(value))}, value...)
}

func number(kind byte, value uint32) []byte {
	return tlv(kind, binary.LittleEndian.AppendUint32(nil, value))
}

// typeOf describes an expression.
func typeOf(kind uint32, attributes ...[]byte) []byte {
	return slices.Concat(number(0, kind), tlv(1, attributes...))
}

func typeOfConcat(parts ...[]byte) []byte {
	var attributes [][]byte
	for i, part := range parts {
		attributes = append(attributes, tlv(byte(i), part))
	}
	return typeOf(nftConcat, attributes...)
}

// typeOfPriority is meta priority.
func typeOfPriority() []byte { return typeOf(nftMeta, number(0, unix.NFT_META_PRIORITY)) }

// typeOfSlot is meta priority . numgen random mod 2; a number of another range
// is of the same type.
func typeOfSlot() []byte {
	return typeOfConcat(typeOfPriority(),
		typeOf(nftNumgen, number(0, unix.NFT_NG_RANDOM), number(1, 2), number(2, 0)))
}

// typeOfTarget is ip daddr . th dport.
func typeOfTarget(family model.Family) []byte {
	payload := func(field [2]uint32) []byte { return typeOf(nftPayload, number(0, field[0]), number(1, field[1])) }
	return typeOfConcat(payload(nftDestination[family]), payload(nftPort))
}

// typeOfClient6 is @nh,96,96 . meta priority.
func typeOfClient6() []byte {
	return typeOfConcat(
		typeOf(nftPayload, number(0, 0), number(1, 0), number(2, unix.NFT_PAYLOAD_NETWORK_HEADER+1), number(3, 96), number(4, 96)),
		typeOfPriority())
}

// described is a set with what nft is to know of it.
type described struct {
	hostKey, hostData bool   // they are numbers in the byte order of the machine
	key, data         []byte // see typeOf; nil: the types in the set say it
}

// complete rewrites an encoded new set that is to be described.
func (b *batch) complete(message []byte) ([]byte, error) {
	const header = 4
	attributes, err := netlink.UnmarshalAttributes(message[header:])
	if err != nil {
		return nil, fmt.Errorf("decode a set: %w", err)
	}
	name := ""
	for _, attribute := range attributes {
		if attribute.Type == unix.NFTA_SET_NAME {
			name = strings.TrimRight(string(attribute.Data), "\x00")
		}
	}
	described, ok := b.described[name]
	if !ok {
		return message, nil
	}
	var comment []byte
	attributes = slices.DeleteFunc(attributes, func(attribute netlink.Attribute) bool {
		if attribute.Type == unix.NFTA_SET_USERDATA {
			comment = userdata.Get(attribute.Data, userdata.NFTNL_UDATA_SET_COMMENT)
		}
		return attribute.Type == unix.NFTA_SET_USERDATA
	})
	attributes = append(attributes, netlink.Attribute{Type: unix.NFTA_SET_USERDATA, Data: described.userdata(comment)})
	encoded, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		return nil, fmt.Errorf("encode a set: %w", err)
	}
	return append(slices.Clone(message[:header]), encoded...), nil
}

func (d *described) userdata(comment []byte) (data []byte) {
	order := func(host bool) uint32 {
		if host {
			return 1
		}
		return 0
	}
	data = append(number(byte(userdata.NFTNL_UDATA_SET_KEYBYTEORDER), order(d.hostKey)),
		number(byte(userdata.NFTNL_UDATA_SET_DATABYTEORDER), order(d.hostData))...)
	if d.key != nil {
		data = append(data, tlv(byte(userdata.NFTNL_UDATA_SET_KEY_TYPEOF), d.key)...)
		data = append(data, tlv(byte(userdata.NFTNL_UDATA_SET_DATA_TYPEOF), d.data)...)
		data = append(data, number(byte(userdata.NFTNL_UDATA_SET_DATA_INTERVAL), 0)...)
	}
	if comment != nil {
		data = append(data, tlv(byte(userdata.NFTNL_UDATA_SET_COMMENT), comment)...)
	}
	return data
}

// describe says what nft is to know of a set that is about to be added.
func (b *batch) describe(set *nft.Set, as described) {
	b = b.holds(set)
	if b.described == nil {
		b.described = map[string]described{}
	}
	b.described[set.Name] = as
}
