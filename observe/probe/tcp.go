package probe

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"
)

// connect asks by TCP, on a new connection.
func (t Task) connect(ctx context.Context) Result {
	r := t.result(TCP)
	r.Sent = 1
	ctx, cancel := context.WithTimeout(ctx, tries*gap)
	defer cancel()
	began := time.Now()
	err := t.here(func() error {
		c, err := (&net.Dialer{}).DialTCP(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(t.To, Port))
		if err != nil {
			return err
		}
		defer c.Close()
		r.RTT = time.Since(began).Seconds()
		if deadline, ok := ctx.Deadline(); ok {
			_ = c.SetDeadline(deadline)
		}
		return converse(c)
	})
	switch {
	case err == nil:
		r.OK = true
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		r.Lost = 1
	default:
		r.Lost, r.Error = 1, explain(err)
	}
	return r
}

func converse(c net.Conn) error {
	var packet [headerSize]byte
	nonce := rand.Uint64()
	message{kind: question, nonce: nonce}.put(packet[:])
	if _, err := c.Write(packet[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, packet[:]); err != nil {
		return err
	}
	if m, ok := parse(packet[:]); !ok || m.kind != answer || m.nonce != nonce {
		return errors.New("what listens there is no Fairlead agent")
	}
	return nil
}
