package gateway

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// spliceFrom is how long the rest of a body is that is worth a pipe, in bytes.
const spliceFrom = 64 << 10

// pipe is what the kernel moves bytes through, from one socket to another, without
// copying them to this process.
type pipe struct{ r, w int }

// pipeSize is how much goes through at once. An ordinary user may have so much.
const pipeSize = 256 << 10

// pipes are those that are not in use. There are never more of them than were in
// use at once.
type pipes struct {
	mu   sync.Mutex
	free []*pipe
}

// maxPipes bounds those that are kept.
const maxPipes = 64

// take returns an empty pipe.
func (all *pipes) take() (*pipe, error) {
	all.mu.Lock()
	if n := len(all.free); n > 0 {
		p := all.free[n-1]
		all.free = all.free[:n-1]
		all.mu.Unlock()
		return p, nil
	}
	all.mu.Unlock()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // else it is of 64 KB
	return &pipe{fds[0], fds[1]}, nil
}

// give takes an empty pipe back.
func (all *pipes) give(p *pipe) {
	all.mu.Lock()
	if len(all.free) < maxPipes {
		all.free = append(all.free, p)
		p = nil
	}
	all.mu.Unlock()
	if p != nil {
		p.close()
	}
}

// close closes those that are not in use.
func (all *pipes) close() {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, p := range all.free {
		p.close()
	}
	all.free = nil
}

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// splice moves bytes from one socket to another, as many as left, and returns how
// many it moved. If left is negative, it ends with the first socket.
func splice(to, from *sock, left int64) (moved int64, failed *side) {
	p, err := from.pipes.take()
	if err != nil {
		return 0, &side{err: err, reading: true}
	}
	for left != 0 {
		n, err := p.fill(from, left)
		if err == nil && n == 0 && left > 0 {
			err = errShort
		}
		if err != nil {
			from.pipes.give(p)
			return moved, &side{err: err, reading: true}
		}
		if n == 0 {
			break
		}
		if err := p.drain(to, n); err != nil {
			p.close() // what is left in it is for nobody else
			return moved, &side{err: err}
		}
		moved += int64(n)
		if from.moved != nil {
			from.moved.Store(from.clock.now())
		}
		if left > 0 {
			left -= int64(n)
		}
	}
	from.pipes.give(p)
	return moved, nil
}

// fill reads into an empty pipe. It returns 0 at the end.
func (p *pipe) fill(from *sock, left int64) (n int, err error) {
	want := pipeSize
	if left > 0 {
		want = int(min(left, pipeSize))
	}
	var failed error
	err = from.raw.Read(func(fd uintptr) bool {
		for {
			moved, err := unix.Splice(int(fd), nil, p.w, nil, want, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			switch err {
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				from.in.waits(from.clock)
				return false
			}
			n, failed = int(moved), os.NewSyscallError("splice", err)
			return true
		}
	})
	from.in.waited()
	if err == nil {
		err = failed
	}
	return n, err
}

// drain writes what is in the pipe.
func (p *pipe) drain(to *sock, n int) error {
	var failed error
	err := to.raw.Write(func(fd uintptr) bool {
		for n > 0 {
			moved, err := unix.Splice(p.r, nil, int(fd), nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			switch err {
			case nil:
				n -= int(moved)
			case unix.EINTR:
			case unix.EAGAIN:
				to.out.waits(to.clock)
				return false
			default:
				failed = os.NewSyscallError("splice", err)
				return true
			}
		}
		return true
	})
	to.out.waited()
	if err == nil {
		err = failed
	}
	return err
}
