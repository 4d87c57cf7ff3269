package nftables

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// beginning lets the first table be made before anybody listens. As long as
// somebody does, the kernel writes of each element of a transaction that it was
// added, 4 KiB each, before it sends the first: of a table for 250,000 endpoints
// that is a gigabyte, and a fifth of the time.
type beginning struct {
	done chan struct{} // closed when a table was tried to be made

	mu        sync.Mutex
	listening bool
	rules     uint64 // handle of those that were made last, until somebody listens; 0: none
}

// apply carries out a commit and notes which rules there are then.
func (b *beginning) apply(commit func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := commit()
	if b.listening {
		return err
	}
	b.rules = 0
	if err == nil {
		b.rules, err = rulesHandle()
	}
	select {
	case <-b.done:
	default:
		close(b.done)
	}
	return err
}

// listened says that from now on all that happens is heard, and tells whether
// the rules that were made before are gone, or others. A part of it that
// somebody has changed since is not noticed; that is a moment.
func (b *beginning) listened() (lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.listening && b.rules != 0 {
		now, err := rulesHandle()
		lost = err != nil || now != b.rules
	}
	b.listening = true
	return lost
}

// wait waits until a table was tried to be made, and tells whether it was not in
// vain.
func (b *beginning) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-b.done:
		return true
	}
}

// Attributes of linux/netfilter/nf_tables.h that golang.org/x/sys lacks.
const (
	attributeTableHandle = 4  // NFTA_TABLE_HANDLE
	attributeSetHandle   = 16 // NFTA_SET_HANDLE
)

// tableHandle is what the kernel calls our table, of all that ever had its name;
// 0 if there is none.
func tableHandle() (uint64, error) {
	return handle(unix.NFT_MSG_GETTABLE, attributeTableHandle, func(attributes *netlink.AttributeEncoder) {
		attributes.String(unix.NFTA_TABLE_NAME, TableName)
	})
}

// rulesHandle is what it calls the map that each process makes anew with its rules.
func rulesHandle() (uint64, error) {
	return handle(unix.NFT_MSG_GETSET, attributeSetHandle, func(attributes *netlink.AttributeEncoder) {
		attributes.String(unix.NFTA_SET_TABLE, TableName)
		attributes.String(unix.NFTA_SET_NAME, standingName)
	})
}

func handle(kind int, attribute uint16, of func(*netlink.AttributeEncoder)) (uint64, error) {
	r, err := openReader()
	if err != nil {
		return 0, err
	}
	defer r.close()
	if err := r.send(kind, netlink.Request, of); err != nil {
		return 0, err
	}
	n, _, err := unix.Recvfrom(r.socket, r.buffer, 0)
	if err != nil {
		return 0, fmt.Errorf("look up table inet %s: %w", TableName, err)
	}
	messages, err := syscall.ParseNetlinkMessage(r.buffer[:n])
	if err != nil || len(messages) == 0 || messages[0].Header.Type == unix.NLMSG_ERROR || len(messages[0].Data) < 4 {
		return 0, nil
	}
	attributes, err := netlink.NewAttributeDecoder(messages[0].Data[4:])
	if err != nil {
		return 0, fmt.Errorf("look up table inet %s: %w", TableName, err)
	}
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		if attributes.Type() == attribute {
			return attributes.Uint64(), nil
		}
	}
	return 0, attributes.Err()
}
