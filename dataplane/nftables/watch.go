package nftables

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Disturbed tells that someone else has changed our table or removed it, which
// nft flush ruleset does: the next Apply makes it anew. It is told only while
// Run runs.
func (p *Plane) Disturbed() <-chan struct{} { return p.disturbed }

// Run watches the table from the first Apply on until the context ends, and cuts
// connections that policies came to forbid. Unlike all else, it may run beside
// Apply. The network namespace is that of the calling thread.
func (p *Plane) Run(ctx context.Context) error {
	self, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		return fmt.Errorf("watch table inet %s: look up the name of this process: %w", TableName, err)
	}
	stop, err := p.runCutter()
	if err != nil {
		return fmt.Errorf("watch connections: %w", err)
	}
	defer stop()
	if !p.beginning.wait(ctx) {
		return nil
	}
	touched, gone := false, false
	err = listen(ctx, func(e event) {
		switch {
		case e.begins:
			if p.beginning.listened() {
				p.disturb()
			}
		case e.lost:
			p.disturb() // perhaps of this
		case e.ends:
			// What a process of our name changes is by this one, or by one that is
			// about to take over, or to end: two that mend each other's would never
			// end. A table that is not there now was not replaced but removed.
			if gone || touched && e.process != strings.TrimSpace(string(self)) {
				p.disturb()
			}
			touched, gone = false, false
		case e.family == nft.TableFamilyINet && e.table == TableName:
			touched = true
			gone = e.kind == unix.NFT_MSG_DELTABLE || gone && e.kind != unix.NFT_MSG_NEWTABLE
		}
	})
	if err != nil {
		return fmt.Errorf("watch table inet %s: %w", TableName, err)
	}
	return nil
}

func (p *Plane) disturb() {
	p.lost.Store(true)
	signal(p.disturbed)
}

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// event is a notification: of a part of a transaction, or of its end; or that
// one begins to listen, or that some were lost.
type event struct {
	begins, lost, ends bool

	kind    int    // NFT_MSG_*
	process string // whose transaction ends: the name of its thread
	family  nft.TableFamily
	table   string
	chain   string // of a chain or a rule
	base    bool   // the chain is at a hook
}

// largestBurst in bytes is that of a table for some ten thousand nodes.
const largestBurst = 64 << 20

// listen follows the kernel's notifications until the context ends. Those of a
// transaction come in its order and end with that of a new generation.
func listen(ctx context.Context, hear func(event)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return err
	}
	defer conn.Close()
	// A transaction is notified of in one burst. Our own must fit, or we would
	// take it for a loss, replace the table, and so for ever.
	if err := conn.SetReadBuffer(largestBurst); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	hear(event{begins: true})
	for buffer := make([]byte, largestNotice); ; {
		messages, err := receive(raw, buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			hear(event{lost: true})
		case err != nil:
			return err
		}
		for _, message := range messages {
			hear(readEvent(message))
		}
	}
}

// largestNotice is more than the kernel puts into one datagram (NLMSG_GOODSIZE: 8 KiB at
// most), in bytes.
const largestNotice = 32 << 10

// receive waits for one datagram and returns the messages in it, which are good until
// the buffer is used again. The library takes a new buffer for each, which is as much
// garbage as all else that becomes of a pod that changes.
func receive(raw syscall.RawConn, buffer []byte) ([]syscall.NetlinkMessage, error) {
	var n int
	var failure error
	err := raw.Read(func(socket uintptr) bool {
		n, failure = unix.Read(int(socket), buffer)
		return !errors.Is(failure, unix.EAGAIN)
	})
	if err = cmp.Or(err, failure); err != nil {
		return nil, fmt.Errorf("receive notifications: %w", err)
	}
	return syscall.ParseNetlinkMessage(buffer[:n])
}

// readEvent reads a message: the family, and after three more bytes attributes.
// Whatever the message is about, the first of these is its table's name.
func readEvent(message syscall.NetlinkMessage) event {
	const header = 4
	e := event{kind: int(message.Header.Type & 0xff)}
	e.ends = e.kind == unix.NFT_MSG_NEWGEN
	if len(message.Data) < header {
		return e
	}
	e.family = nft.TableFamily(message.Data[0])
	attributes, err := netlink.NewAttributeDecoder(message.Data[header:])
	if err != nil {
		return e
	}
	ofChain := e.kind == unix.NFT_MSG_NEWCHAIN || e.kind == unix.NFT_MSG_DELCHAIN
	ofRule := e.kind == unix.NFT_MSG_NEWRULE || e.kind == unix.NFT_MSG_DELRULE
	for attributes.Next() {
		switch kind := attributes.Type(); {
		case e.ends:
			if kind == unix.NFTA_GEN_PROC_NAME {
				e.process = attributes.String()
			}
		case kind == unix.NFTA_TABLE_NAME:
			e.table = attributes.String()
			if !ofChain && !ofRule {
				return e
			}
		case ofChain && kind == unix.NFTA_CHAIN_NAME, ofRule && kind == unix.NFTA_RULE_CHAIN:
			e.chain = attributes.String()
		case ofChain && kind == unix.NFTA_CHAIN_HOOK:
			e.base = true
		}
	}
	return e
}
