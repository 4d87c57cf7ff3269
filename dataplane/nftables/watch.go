package nftables

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Disturbed tells that someone has removed our table, which nft flush ruleset
// does: the next Apply makes it anew. It is told only while Run runs.
func (p *Plane) Disturbed() <-chan struct{} { return p.disturbed }

// Run watches the table until the context ends. Unlike all else, it may run
// beside Apply. The network namespace is that of the calling thread.
func (p *Plane) Run(ctx context.Context) error {
	for {
		err := p.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watch table inet %s: %w", TableName, err)
		}
		p.disturb() // notifications were lost; perhaps this one
	}
}

// largestBurst in bytes is that of a table for some ten thousand nodes.
const largestBurst = 64 << 20

func (p *Plane) disturb() {
	p.lost.Store(true)
	select {
	case p.disturbed <- struct{}{}:
	default:
	}
}

// watch follows the kernel's notifications. Those of a transaction come in its
// order and end with that of a new generation: a table that is not there then
// was not replaced but removed.
func (p *Plane) watch(ctx context.Context) error {
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
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	gone := false
	for {
		messages, err := conn.Receive()
		if err != nil {
			return err
		}
		for _, message := range messages {
			switch message.Header.Type & 0xff {
			case unix.NFT_MSG_DELTABLE:
				gone = gone || isOurTable(message.Data)
			case unix.NFT_MSG_NEWTABLE:
				gone = gone && !isOurTable(message.Data)
			case unix.NFT_MSG_NEWGEN:
				if gone {
					p.disturb()
				}
				gone = false
			}
		}
	}
}

// isOurTable reads a message about a table: its family, and after three more
// bytes its attributes.
func isOurTable(message []byte) bool {
	const header = 4
	if len(message) < header || message[0] != unix.NFPROTO_INET {
		return false
	}
	attributes, err := netlink.NewAttributeDecoder(message[header:])
	if err != nil {
		return false
	}
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_TABLE_NAME {
			return attributes.String() == TableName
		}
	}
	return false
}
