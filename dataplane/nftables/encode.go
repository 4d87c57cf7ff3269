package nftables

import (
	"encoding/binary"

	nft "github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// The library encodes elements with a dozen allocations each, which was most of
// what an agent allocates when it starts in a large cluster.

// elementsMessage is the body of a message of NFT_MSG_NEWSETELEM or DELSETELEM
// for entries of a set, as the library encodes it. It knows keys, values, ends
// of intervals and timeouts, but neither verdicts nor comments.
func elementsMessage(set *nft.Set, part pieces) []byte {
	const header, each = 128, 40 // bytes, besides names, keys and values
	size := header
	for _, piece := range part {
		for _, e := range piece.encoded {
			size += each + len(e.Key) + len(e.KeyEnd) + len(e.Val)
		}
	}
	m := encoding{append(make([]byte, 0, size), byte(set.Table.Family), unix.NFNETLINK_V0, 0, 0)}
	m.add(unix.NFTA_SET_ELEM_LIST_SET, append([]byte(set.Name), 0))
	m.add(unix.NFTA_SET_ELEM_LIST_SET_ID, binary.BigEndian.AppendUint32(nil, set.ID))
	m.add(unix.NFTA_SET_ELEM_LIST_TABLE, append([]byte(set.Table.Name), 0))
	list := m.begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	number := uint16(0)
	for _, piece := range part {
		for i := range piece.encoded {
			number++
			m.element(number, set, &piece.encoded[i])
		}
	}
	m.end(list)
	return m.bytes
}

func (m *encoding) element(number uint16, set *nft.Set, e *nft.SetElement) {
	item := m.begin(number)
	if e.IntervalEnd {
		flags := m.begin(unix.NFTA_SET_ELEM_FLAGS)
		m.bytes = binary.BigEndian.AppendUint32(m.bytes, unix.NFT_SET_ELEM_INTERVAL_END)
		m.end(flags)
	}
	m.value(unix.NFTA_SET_ELEM_KEY, e.Key)
	if len(e.KeyEnd) > 0 {
		m.value(nft.NFTA_SET_ELEM_KEY_END, e.KeyEnd)
	}
	if set.HasTimeout && e.Timeout != 0 {
		m.add(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(e.Timeout.Milliseconds())))
	}
	if len(e.Val) > 0 {
		m.value(unix.NFTA_SET_ELEM_DATA, e.Val)
	}
	m.end(item)
}

// encoding is of attributes of netlink (include/uapi/linux/netlink.h): each a
// length, a type and what follows, padded to four bytes.
type encoding struct{ bytes []byte }

const attributeHeader = 4

func (m *encoding) add(kind uint16, value []byte) {
	m.bytes = binary.NativeEndian.AppendUint16(m.bytes, uint16(attributeHeader+len(value)))
	m.bytes = binary.NativeEndian.AppendUint16(m.bytes, kind)
	m.bytes = append(m.bytes, value...)
	for len(m.bytes)%4 != 0 {
		m.bytes = append(m.bytes, 0)
	}
}

// begin opens an attribute of attributes, which end closes.
func (m *encoding) begin(kind uint16) (at int) {
	at = len(m.bytes)
	m.bytes = binary.NativeEndian.AppendUint16(m.bytes, 0)
	m.bytes = binary.NativeEndian.AppendUint16(m.bytes, kind|unix.NLA_F_NESTED)
	return at
}

func (m *encoding) end(at int) {
	binary.NativeEndian.PutUint16(m.bytes[at:], uint16(len(m.bytes)-at))
}

// value is data of an element.
func (m *encoding) value(kind uint16, value []byte) {
	at := m.begin(kind)
	m.add(unix.NFTA_DATA_VALUE, value)
	m.end(at)
}
