package probe

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// exchange asks with packets of some sizes, each until it is answered or was
// asked often enough.
type exchange struct {
	conn  *conn
	sizes []int // bytes with the IP header
	tries int
	gap   time.Duration

	sent     int
	answered map[int]bool  // by size
	rtt      time.Duration // of the first answer
	endpoint bool          // says the answer
	refusal  refusal       // the last one
}

// refusal is what was heard instead of an answer. The zero value is nothing.
type refusal struct {
	text string
	from netip.Addr // invalid: the own kernel
	mtu  int        // bytes; of a packet that is too big

	closed bool // nobody listens
}

// question that was sent.
type asked struct {
	size int
	at   time.Time
}

func (x *exchange) run(ctx context.Context) {
	x.answered = map[int]bool{}
	stop := context.AfterFunc(ctx, func() { _ = x.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var questions []asked
	for range x.tries {
		for _, size := range x.sizes {
			if x.answered[size] || x.refusal.mtu > 0 && size > x.refusal.mtu {
				continue
			}
			questions = append(questions, asked{size, time.Now()})
			x.sent++
			if err := x.conn.ask(uint16(len(questions)-1), size); err != nil {
				x.refuse(err, size)
			}
		}
		_ = x.conn.SetReadDeadline(time.Now().Add(x.gap))
		if ctx.Err() != nil || !x.listen(questions) {
			return
		}
	}
}

// listen takes answers until the deadline; it tells whether some are missing.
func (x *exchange) listen(questions []asked) (missing bool) {
	for !x.done() {
		m, err := x.conn.hear()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return true
		case err != nil && !passing(err):
			x.refusal.text = explain(err)
			return false
		case err != nil:
			x.refuse(err, 0)
		case int(m.sequence) < len(questions):
			q := questions[m.sequence]
			if len(x.answered) == 0 {
				x.rtt = time.Since(q.at)
			}
			x.answered[q.size] = true
			x.endpoint = m.flags&hasEndpoint != 0
		}
	}
	return false
}

// done tells whether nothing more is to be heard.
func (x *exchange) done() bool {
	for _, size := range x.sizes {
		if !x.answered[size] && !(x.refusal.mtu > 0 && size > x.refusal.mtu) {
			return false
		}
	}
	return true
}

// largest is the greatest size that was answered; 0 if none was.
func (x *exchange) largest() (size int) {
	for answered := range x.answered {
		size = max(size, answered)
	}
	return size
}

// refuse notes what the kernel says: of a packet that it was to send, or of one
// that somebody on the way has not let pass.
func (x *exchange) refuse(err error, size int) {
	said := x.conn.refusal()
	if said == (refusal{}) {
		said.text, said.closed = explain(err), errors.Is(err, unix.ECONNREFUSED)
		if errors.Is(err, unix.EMSGSIZE) && size > 0 {
			said.mtu = size - 1
		}
	}
	if said.mtu > 0 && x.refusal.mtu > 0 && x.refusal.mtu < said.mtu {
		return
	}
	x.refusal = said
}

// passing tells whether an error is that of a packet and not of the socket.
func passing(err error) bool {
	for _, errno := range []error{
		unix.EMSGSIZE, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.EPERM,
		unix.EPROTO, unix.EHOSTDOWN, unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.ENONET, unix.ENOBUFS,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// explain puts an error of the kernel into words.
func explain(err error) string {
	for errno, text := range map[error]string{
		unix.ECONNREFUSED:  "refused: nobody listens there, or a firewall rejects it",
		unix.EHOSTUNREACH:  "host unreachable",
		unix.ENETUNREACH:   "network unreachable: there is no route",
		unix.EACCES:        "forbidden by a firewall",
		unix.EPERM:         "forbidden by a firewall of the sending node",
		unix.EMSGSIZE:      "too big",
		unix.EADDRNOTAVAIL: "the sender has no address of this family",
	} {
		if errors.Is(err, errno) {
			return text
		}
	}
	return err.Error()
}
